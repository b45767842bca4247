#!/bin/sh
# A coding agent in a few lines of shell. It knows one defect; what it replies is written for that defect.
cat >/dev/null
case $MOSS_ROLE in
locate)
    echo '{"summary": "answer() prices the first good of a message and drops the others.", "failure_class": "incomplete",
     "depth": "structural", "suspects": [{"path": "agent.py", "why": "it uses goods[0]"}], "siblings": []}'
    ;;
plan)
    echo '{"summary": "Price all goods.", "changes": [{"path": "agent.py", "change": "go through goods in answer()"}],
     "expect_better": [], "may_hurt": []}'
    ;;
implement)
    sed -i 's/^    return f"{goods\[0\]}: {PRICES\[goods\[0\]\]}"$/    return ", ".join(f"{good}: {PRICES[good]}" for good in goods)/' agent.py
    echo '{"summary": "answer() prices all goods of a message."}'
    ;;
plan_review | code_review)
    echo '{"verdict": "APPROVE", "remarks": "The only place where goods are dropped."}'
    ;;
verdict)
    echo '{"verdict": "CONVERGED", "reason": "Every good is priced."}'
    ;;
*)
    echo "this coder does not know the role $MOSS_ROLE" >&2
    exit 3
    ;;
esac
