#!/bin/sh
# A coding agent in forty lines of shell. It knows one defect; what it replies is written for that defect.
cat >/dev/null
case $MOSS_ROLE in
locate)
    echo '{"summary": "answer() looks at its first argument only, so every further good of a message is dropped.",
     "failure_class": "incomplete", "depth": "structural",
     "suspects": [{"path": "agent.sh", "why": "answer() uses $1 where it should go through all arguments"}],
     "siblings": ["any message that names two or more goods"]}'
    ;;
plan)
    echo '{"summary": "Go through all goods of the message.",
     "changes": [{"path": "agent.sh", "change": "a loop over the arguments in answer()"}],
     "expect_better": [], "may_hurt": []}'
    ;;
plan_review)
    echo '{"verdict": "APPROVE", "remarks": "The only place where goods are dropped."}'
    ;;
implement)
    # shellcheck disable=SC2016
    sed -e 's/^    good=$1$/    for good in "$@"; do/' \
        -e 's/^    echo "$good costs .*"$/&\n    done/' agent.sh >agent.new
    cat agent.new >agent.sh
    rm agent.new
    echo 'I made it a loop.'
    echo '{"summary": "answer() goes through all its arguments."}'
    ;;
code_review)
    echo '{"verdict": "APPROVE", "remarks": "Does what the plan says."}'
    ;;
verdict)
    echo '{"verdict": "CONVERGED", "reason": "Every good is priced."}'
    ;;
*)
    echo "this coder does not know the role $MOSS_ROLE" >&2
    exit 3
    ;;
esac
