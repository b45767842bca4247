"""The README's table of features and the code, kept together: what works is tested under a name that exists, and what
is said to be missing is missing."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.commands import VERBS
from core.model.keypoints import TaskKind
from tests.support.world import ROOT

WORKS, PART, ENGINE, NOT_YET = "works", "in part", "engine only", "not yet"


def none(pattern: str) -> Callable[[], bool]:
    """There is no such file."""
    return lambda: not list(ROOT.glob(pattern))


PROOFS: dict[int, tuple[str, ...]] = {
    1: (
        "a_reaction_flags_a_reply_with_the_conversation_before_it",
        "taking_a_reaction_off_withdraws_the_flag",
        "a_mention_is_answered_flagged_and_its_repair_approved",
        "a_reaction_flags_a_reply_and_its_removal_takes_the_flag_back",
    ),
    2: ("a_form_adds_the_flaggers_words", "nothing_is_stored_before_it_is_redacted"),
    3: ("five_people_and_many_deliveries_are_one_chunk_of_weight_five",),
    5: ("the_eighth_reply_seals_and_the_ninth_opens_the_next_batch", "batches_are_sealed_by_age_and_not_before"),
    6: ("every_verb_takes_json_and_is_explained_with_its_example", "help_names_every_verb_and_one_verb_in_detail"),
    7: ("over_twenty_thousand_random_runs_end_skip_no_gate_and_pass_no_budget",),
    8: ("a_grader_defines_keypoints_and_then_keeps_to_them", "a_gain_must_beat_the_control_and_not_only_the_recording"),
    9: (
        "the_stages_follow_each_other_in_the_fixed_order",
        "a_rejected_plan_is_planned_again_and_then_the_iteration_ends",
    ),
    10: ("a_reply_comes_back_checked_with_what_it_cost", "each_role_may_have_another"),
    11: ("a_foreign_agent_is_adopted_evolved_approved_swapped_and_rolled_back",),
    12: ("a_candidate_that_does_not_build_ends_its_iteration_only",),
    13: (
        "an_isolated_box_has_no_way_to_anywhere",
        "trials_share_no_state",
        "it_reaches_its_model_with_a_token_and_nothing_else",
    ),
    14: ("a_convergence_that_lowers_a_keypoint_is_refused_and_the_next_iteration_is_told",),
    15: ("report_and_diff_are_shown_to_the_one_who_asked", "verbs_that_look_show_cards"),
    16: ("a_run_has_one_card_that_is_edited_in_place_and_milestones_in_its_thread",),
    17: ("a_click_means_what_the_rule_says", "a_forged_id_a_foreign_token_and_no_token_reach_nothing"),
    18: ("a_good_candidate_goes_live_with_the_old_ones_memory", "a_candidate_that_fails_its_probes_is_never_live"),
    19: ("a_rollback_and_the_rollback_of_it_bring_the_versions_back_with_the_memory_of_all",),
    20: (
        "whoever_flagged_a_reply_gets_before_and_after_in_its_thread_once_the_repair_is_live",
        "each_notice_is_posted_in_order_with_the_token",
    ),
    21: ("it_is_posted_once_a_period_where_news_goes", "two_processes_post_it_once"),
    22: ("a_second_run_starts_from_the_first_fix_and_may_not_lose_it",),
    23: ("a_candidate_that_lifts_the_batch_but_no_held_back_sibling_is_not_offered", "a_check_is_met_or_not"),
    26: ("a_message_in_a_channel_is_answered_in_its_thread_and_both_are_kept",),
    27: ("the_consent_card_says_all_that_a_decision_needs",),
    28: ("a_prediction_is_met_missed_or_a_surprise",),
    29: ("killed_once_in_every_state_moss_ends_the_story_as_if_nothing_had_happened",),
    30: ("a_spent_budget_stops_the_run_before_the_next_stage", "what_is_left_of_a_budget_holds_for_trials_too"),
    31: (
        "secrets_and_people_are_taken_out_of_what_people_type",
        "no_secret_is_kept_wherever_it_was_let_slip",
        "secrets_go_from_chat_and_what_looks_like_them_stays",
    ),
    32: ("protected_wins_over_editable_and_names_the_rule", "who_obeys_a_conversation_gets_nothing_past_the_gates"),
    34: ("they_lead_from_a_repository_to_a_repaired_agent_that_is_live",),
    35: ("two_processes_perform_each_job_once_and_together_keep_to_the_limit",),
    36: (
        "no_swap_is_planned_in_quiet_hours_or_under_a_freeze",
        "an_approved_run_waits_out_a_freeze_and_status_says_why",
    ),
}
"""Feature -> tests by their sentences."""

MISSING: dict[int, Callable[[], bool]] = {
    4: none("flags/scan*"),
    6: lambda: "catch-up" not in VERBS,
    23: lambda: "stress" not in set(TaskKind),
    24: none("core/swap/soak*"),
    25: none("core/oversight*"),
    26: none("core/store/trajectories*"),
    33: none("bot/agent_api*"),
    34: none("flags/sessions/openclaw*"),
    35: none("docs/replicas*"),
}
"""Feature that is not whole -> whether that is still so. A feature that arrives makes its line in the README false."""


def table() -> dict[int, str]:
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return {int(number): status.strip() for number, status in rows}


def sentences() -> set[str]:
    """Of every test there is."""
    texts = (path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    return {name for text in texts for name in re.findall(r"^\s*(?:async )?def test_(\w+)\(", text, re.MULTILINE)}


def test_all_thirty_six_are_there_with_a_status() -> None:
    found = table()
    assert list(found) == list(range(1, 37))
    assert {status.split(":")[0] for status in found.values()} <= {WORKS, PART, ENGINE, NOT_YET}


@pytest.mark.parametrize("number", range(1, 37))
def test_a_line_of_the_table_says_what_the_code_says(number: int) -> None:
    status = table()[number]
    kind = status.split(":")[0]
    assert (number in PROOFS) == (kind != NOT_YET), "what is there is tested, and what is tested is there"
    assert set(PROOFS.get(number, ())) <= sentences()
    assert (number in MISSING) == (kind != WORKS), "what is missing is looked for"
    assert number not in MISSING or MISSING[number](), "it has arrived, at least in part: say so in the README"
    assert kind in (WORKS, NOT_YET) or ":" in status, "what is not whole says what is missing"
