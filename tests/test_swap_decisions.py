"""The pure halves of adoption, rollback and reconciliation: what is found decides what is done."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from core.containers.host import BoxState, Portrait, Volume, label
from core.model.errors import NotFound, Refused
from core.model.substrate import Substrate
from core.model.swap import LastGood, Swap, SwapState, Version
from core.swap import reconcile
from core.swap.reconcile import Deed, Known
from core.swap.rollback import choose, overtaken
from core.swap.survey import Fresh, LastImage, Running, choose_way, commit_of, differences, of_portrait, of_settings

AT = datetime(2026, 3, 1, tzinfo=UTC)
IMAGES = {letter: "sha256:" + letter * 64 for letter in "abcdef"}


def version(number: int, image: str, live: bool = False) -> Version:
    return Version(
        substrate="desk",
        number=number,
        commit=f"c{number}",
        image=IMAGES[image],
        box=f"box-{number}",
        boot_id=f"boot-{number}",
        swap=None,
        since=AT,
        until=None if live else AT,
    )


THREE = [version(0, "a"), version(1, "b"), version(2, "c", live=True)]
ALL = set(IMAGES.values())


def test_a_rollback_goes_to_the_newest_version_that_differs_from_the_live_one() -> None:
    assert choose("desk", THREE, ALL, None).number == 1


def test_a_rollback_passes_over_versions_whose_image_is_gone_or_live() -> None:
    assert choose("desk", THREE, ALL - {IMAGES["b"]}, None).number == 0
    again = [version(0, "a"), version(1, "b"), version(2, "a", live=True)]
    assert choose("desk", again, ALL, None).number == 1, "the rollback of a rollback"


@pytest.mark.parametrize(
    ("versions", "images", "wanted", "error", "said"),
    [
        ([], ALL, None, Refused, "Nothing of desk is live yet"),
        (THREE, {IMAGES["c"]}, None, Refused, "before 2 has an image left"),
        (THREE[2:], ALL, None, Refused, "No version of desk before 2"),
        (THREE, ALL, 7, NotFound, "never had a version 7; it had 0, 1, 2"),
        (THREE, ALL, 2, Refused, "Version 2 of desk is what runs already"),
        ([version(0, "a"), version(1, "a", live=True)], ALL, 0, Refused, "Version 0 of desk is what runs already"),
        (THREE, ALL - {IMAGES["a"]}, 0, Refused, "The image of version 0 of desk is gone"),
    ],
)
def test_a_rollback_that_cannot_be_is_refused_with_its_reason(
    versions: list[Version], images: set[str], wanted: int | None, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        choose("desk", versions, images, wanted)


def test_a_named_version_is_taken_as_named() -> None:
    assert choose("desk", THREE, ALL, 0).number == 0


def lived(*images: str) -> list[Version]:
    """One version an hour, the last one live."""
    hours = [AT + timedelta(hours=n) for n in range(len(images) + 1)]
    made = [version(n, image) for n, image in enumerate(images)]
    ends = [*hours[1 : len(images)], None]
    return [
        each.model_copy(update={"since": since, "until": until})
        for each, since, until in zip(made, hours, ends, strict=False)
    ]


def test_a_rollback_means_the_version_before_the_one_that_was_live_when_it_was_asked_for() -> None:
    four = lived("a", "b", "c", "d")
    assert choose("desk", four, ALL, None, AT + timedelta(hours=2, minutes=30)).number == 1
    assert choose("desk", four, ALL, None, AT + timedelta(hours=3, minutes=30)).number == 2
    with pytest.raises(Refused, match="Nothing of desk was live when"):
        choose("desk", four, ALL, None, AT - timedelta(hours=1))


def test_the_second_of_two_quick_rollbacks_means_what_the_first_has_brought_back() -> None:
    back = lived("a", "b", "c", "b")
    with pytest.raises(Refused, match="Version 1 of desk is what runs already"):
        choose("desk", back, ALL, None, AT + timedelta(hours=2, minutes=30))


def test_a_rollback_is_overtaken_by_what_went_live_after_it_was_asked_for() -> None:
    *_, live = lived("a", "b", "c")
    assert overtaken(live, 1, live.since) is None
    assert overtaken(None, 1, AT) is None
    assert "Version 2 of desk went live after" in str(overtaken(live, 0, live.since - timedelta(seconds=1)))


# Adoption


def agent(**run: object) -> Substrate:
    return Substrate.model_validate(
        {"name": "desk", "repository": "/srv/desk", "run": run, "health": {"http": "/healthz"}}
    )


def shown(name: str, running: bool = True, commit: str = "c9", **labels: str) -> BoxState:
    return BoxState(name, IMAGES["a"], running, {label.COMMIT: commit, **labels})


GOOD = LastGood(substrate="desk", image=IMAGES["a"], commit="c2", box="box-2", recorded_at=AT)


def way(substrate: Substrate, **found: object) -> object:
    usual: dict[str, object] = {"named": None, "ours": [], "versions": [], "good": None, "commit": None}
    return choose_way(substrate, **{**usual, **found})  # type: ignore[arg-type]


def test_a_box_that_runs_already_is_adopted_as_it_is() -> None:
    found = shown("agent")
    assert way(agent(box="agent"), named=found) == Running(found, ours=False)


def test_without_a_box_moss_builds_the_branch_or_the_commit_that_was_named() -> None:
    assert way(agent()) == Fresh(None)
    assert way(agent(), commit="c7") == Fresh("c7")


def test_after_a_stuck_swap_what_a_human_started_is_adopted_else_the_last_good_image_starts() -> None:
    mended = shown("moss-desk-1")
    assert way(agent(), ours=[mended], versions=THREE, good=GOOD) == Running(mended, ours=True)
    stopped = shown("moss-desk-1", running=False)
    assert way(agent(), ours=[stopped], versions=THREE, good=GOOD) == LastImage(GOOD)
    assert way(agent(box="agent"), versions=THREE, good=GOOD) == LastImage(GOOD), "its first box is long gone"
    assert way(agent(), versions=THREE) == Fresh(None), "the last good image is gone too"


def test_a_commit_that_does_not_run_is_built_even_when_something_else_runs() -> None:
    assert way(agent(), ours=[shown("moss-desk-1")], versions=THREE, good=GOOD, commit="c8") == Fresh("c8")
    assert way(agent(), ours=[shown("moss-desk-1")], versions=THREE, commit="c9") == Running(
        shown("moss-desk-1"), ours=True
    )


def test_a_redeployed_box_wins_over_the_last_good_image() -> None:
    assert way(agent(box="agent"), named=shown("agent"), versions=THREE, good=GOOD) == Running(shown("agent"), False)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "There is no box agent"),
        ({"named": shown("agent", running=False)}, "The box agent does not run"),
        (
            {"named": shown("agent"), "ours": [shown("moss-desk-1")], "versions": THREE},
            "agent and moss-desk-1 run at once",
        ),
    ],
)
def test_what_cannot_be_adopted_is_refused_with_its_reason(found: dict[str, object], said: str) -> None:
    with pytest.raises(Refused, match=said):
        way(agent(box="agent"), **found)


DESK = agent(
    box="agent",
    command=["serve"],
    port=8000,
    publish=18000,
    env={"MODE": "live"},
    env_from=["MODEL_KEY"],
    volume="desk-state",
    state_path="/data",
    user="1000",
)
ENV = {"MODE": "live", "MODEL_KEY": "sk-secret"}
PORTRAIT = Portrait(
    name="agent",
    image=IMAGES["a"],
    command=("serve",),
    env={"MODE": "live", "MODEL_KEY": "sk-secret", "PORT": "8000", "MOSS_BOOT_ID": "b"},
    volumes=(Volume("desk-state", "/data"),),
    ports={8000: 18000, 9000: None},
    user="1000",
    restart="unless-stopped",
)


def test_a_box_that_the_settings_describe_fully_has_no_obstacle() -> None:
    assert differences(PORTRAIT, DESK, ENV) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"beyond": ("is privileged",)}, "it is privileged"),
        ({"beyond": ("is on the network `shop`",)}, "is on the network `shop`"),
        ({"env": {**PORTRAIT.env, "EXTRA": "x"}}, "it has EXTRA, which neither"),
        ({"env": {"MODE": "live"}}, "it lacks MODEL_KEY"),
        ({"env": {**PORTRAIT.env, "MODE": "test"}}, "its MODE has another value"),
        ({"env": {**PORTRAIT.env, "PORT": "9"}}, "it has PORT"),
        ({"volumes": ()}, "it has no volume"),
        ({"volumes": (Volume("other", "/data"),)}, "it has `other` at /data"),
        ({"volumes": (*PORTRAIT.volumes, Volume("cache", "/cache"))}, "several volumes"),
        ({"ports": {8000: 80}}, "it publishes 8000 as 80"),
        ({"ports": {8000: None}}, "it publishes no port"),
        ({"command": None}, "its command is that of its image"),
        ({"user": None}, "its user is that of its image"),
        ({"restart": "always"}, "its restart is `always`"),
        ({"pids": 100}, "it may have 100 processes; set `run.pids`"),
    ],
)
def test_each_difference_is_named_with_its_mend(change: dict[str, object], said: str) -> None:
    found = differences(replace(PORTRAIT, **change), DESK, ENV)  # type: ignore[arg-type]
    assert len(found) == 1
    assert said in found[0]


def test_a_survey_shows_names_of_the_environment_and_no_value() -> None:
    seen = of_portrait(Running(shown("agent"), ours=False), PORTRAIT, DESK, "c9", {**ENV, "MODEL_KEY": "sk-secret-2"})
    text = "\n".join(seen.lines())
    assert "MODE, MODEL_KEY" in text
    assert "desk-state at /data" in text
    assert "8000 published as 18000" in text
    assert "its MODEL_KEY has another value" in text
    assert "sk-secret" not in text + repr(seen) + repr(PORTRAIT)


def test_a_survey_of_an_agent_that_moss_starts_itself_shows_the_settings() -> None:
    text = "\n".join(of_settings(Fresh(None), DESK).lines())
    assert "to be started by Moss" in text
    assert "the head of the branch" in text
    assert "MODE, MODEL_KEY" in text
    assert of_settings(LastImage(GOOD), DESK).commit == "c2"


def test_the_commit_of_an_image_comes_from_our_label_or_the_common_one() -> None:
    assert commit_of({label.COMMIT: "c1", "org.opencontainers.image.revision": "c2"}) == "c1"
    assert commit_of({"org.opencontainers.image.revision": "c2"}) == "c2"
    assert commit_of({}) is None


# Reconciliation

LIVE = version(2, "c", live=True)
SWAP = Swap(
    id="swap-9",
    substrate="desk",
    consent="consent-9",
    run=None,
    state=SwapState.probing,
    commit="c3",
    image=IMAGES["d"],
    boot_id="boot-9",
    old_box="box-2",
    new_box="moss-desk-9",
    planned_at=AT,
)
SOUND = Known("desk", LIVE, None, False, {"run-1": 4}, frozenset({IMAGES["a"], IMAGES["b"], IMAGES["c"]}))
LIVE_BOX = BoxState("box-2", IMAGES["c"], True, {label.PURPOSE: "live"})


def box(name: str, image: str = "e", running: bool = True, **labels: str) -> BoxState:
    return BoxState(name, IMAGES[image], running, {f"moss.{key}": value for key, value in labels.items()})


def deeds(known: Known, *boxes: BoxState, **images: dict[str, str]) -> list[tuple[Deed, str]]:
    given = {IMAGES[letter]: {f"moss.{k}": v for k, v in labels.items()} for letter, labels in images.items()}
    return [(decision.deed, decision.name) for decision in reconcile.decide(known, boxes, given)]


def test_a_sound_house_needs_nothing() -> None:
    assert deeds(SOUND, LIVE_BOX, a={}, b={}, c={"purpose": "live"}) == []


def test_boxes_of_the_step_under_way_stay_and_all_other_boxes_of_runs_go() -> None:
    now = box("t1", purpose="trial", run="run-1", step="4")
    relay = box("t1-relay", purpose="relay", run="run-1", step="4")
    earlier = box("t0", purpose="trial", run="run-1", step="3")
    other = box("t9", purpose="check", run="run-0", step="4")
    assert deeds(SOUND, LIVE_BOX, now, relay, earlier, other) == [(Deed.remove_box, "t0"), (Deed.remove_box, "t9")]


def test_live_boxes_beside_the_live_one_go_unless_a_swap_or_a_human_still_needs_them() -> None:
    left, new, back = (box(name, purpose="live") for name in ("box-1", "moss-desk-9", "moss-desk-9-back"))
    gone = [(Deed.remove_box, name) for name in ("box-1", "moss-desk-9", "moss-desk-9-back")]
    assert deeds(SOUND, LIVE_BOX, left, new, back) == gone
    assert deeds(replace(SOUND, swap=SWAP), LIVE_BOX, left, new, back) == gone[:1]
    assert deeds(replace(SOUND, needs_adoption=True), LIVE_BOX, left, new, back) == []


def test_images_go_when_nothing_may_ever_start_them_again() -> None:
    used = box("x", "e", purpose="live")
    of_run, of_ended_run = ({"purpose": "candidate", "run": run, "step": "2"} for run in ("run-1", "run-0"))
    known = replace(SOUND, swap=SWAP)
    found = deeds(known, LIVE_BOX, used, a={}, e={}, d=of_run, f=of_ended_run)
    assert found == [(Deed.remove_box, "x"), (Deed.remove_image, IMAGES["f"])]


def test_the_images_of_the_newest_versions_are_kept_and_one_that_came_back_counts_once() -> None:
    versions = [version(n, letter) for n, letter in enumerate("abcab")]
    for keep, letters in ((1, "b"), (2, "ab"), (3, "abc"), (9, "abc")):
        assert reconcile.newest(versions, keep) == {IMAGES[letter] for letter in letters}


def test_an_image_that_an_adoption_under_way_has_just_built_stays() -> None:
    built = {"purpose": "candidate"}
    fresh = replace(SOUND, live=None, needs_adoption=True)
    assert deeds(fresh, d=built) == []
    assert deeds(SOUND, LIVE_BOX, d=built) == [(Deed.remove_image, IMAGES["d"])]


def test_a_container_that_somebody_runs_from_our_image_has_its_labels_and_is_left_alone() -> None:
    by_hand = box("my-look-at-it", purpose="candidate", run="run-0", step="7")
    assert deeds(SOUND, LIVE_BOX, by_hand) == []
    evidence = replace(box("copy", purpose="live"), by_hand=True)
    assert deeds(SOUND, LIVE_BOX, evidence) == []
    assert deeds(SOUND, LIVE_BOX, replace(evidence, running=False)) == [(Deed.remove_box, "copy")]
    left_by_a_build = replace(by_hand, running=False)
    assert deeds(SOUND, LIVE_BOX, left_by_a_build) == [(Deed.remove_box, "my-look-at-it")]
    of_a_build_under_way = box("builder", running=False, purpose="candidate", run="run-1", step="2")
    assert deeds(SOUND, LIVE_BOX, of_a_build_under_way) == []


def test_a_live_box_that_fell_is_started_unless_somebody_else_is_at_it() -> None:
    fallen = replace(LIVE_BOX, running=False)
    assert deeds(SOUND, fallen) == [(Deed.start_live, "box-2")]
    assert deeds(replace(SOUND, swap=SWAP), fallen) == []
    assert deeds(replace(SOUND, needs_adoption=True), fallen) == []


def test_a_live_box_that_ended_stays_so_where_its_owner_wants_that() -> None:
    ended = {code: replace(LIVE_BOX, running=False, exit_code=code) for code in (0, 3)}

    def deed(policy: str, code: int) -> Deed:
        [(found, _)] = deeds(replace(SOUND, restart=policy), ended[code])
        return found

    assert [deed("no", 0), deed("no", 3)] == [Deed.report_down] * 2
    assert [deed("on-failure", 0), deed("on-failure", 3)] == [Deed.report_down, Deed.start_live]
    assert [deed("always", 0), deed("unless-stopped", 0)] == [Deed.start_live] * 2


def test_a_live_box_that_somebody_renamed_or_copied_is_told_and_never_removed() -> None:
    renamed = box("mine", "c", purpose="live", **{"boot-id": LIVE.boot_id})
    [found] = reconcile.decide(SOUND, [renamed], {})
    assert (found.deed, found.why) == (Deed.report_drift, "its box box-2 was renamed to mine")
    assert deeds(SOUND, LIVE_BOX, renamed) == []
    earlier = box("box-1", "b", purpose="live", **{"boot-id": "boot-1"})
    assert deeds(SOUND, renamed, earlier) == [(Deed.remove_box, "box-1"), (Deed.report_drift, "box-2")]


def test_drift_is_reported_and_never_overwritten() -> None:
    assert deeds(SOUND) == [(Deed.report_drift, "box-2")]
    assert deeds(SOUND, replace(LIVE_BOX, image=IMAGES["f"])) == [(Deed.report_drift, "box-2")]
    assert deeds(SOUND, replace(LIVE_BOX, image=IMAGES["f"], running=False)) == [(Deed.report_drift, "box-2")]
