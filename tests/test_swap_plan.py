"""A swap's plan is pure: from any state, whatever the host shows and wherever Moss dies, it ends with one right box."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.containers.host import BoxState, Volume, label
from core.containers.inside import check_name
from core.model.errors import BadInput
from core.model.substrate import Substrate
from core.model.swap import SWAP_IN_FLIGHT, SWAP_MOVES, LastGood, Swap, SwapState
from core.model.value import short
from core.swap.plan import (
    Action,
    Scene,
    Verdict,
    adopted_box,
    back_boot_id,
    back_box,
    box_spec,
    ended,
    new_box,
    next_action,
    objection,
    swap_id,
)

T0 = datetime(2026, 3, 1, tzinfo=UTC)
OLD_IMAGE, NEW_IMAGE = "sha256:" + "a" * 64, "sha256:" + "b" * 64
SWAP = Swap(
    id="swap-7k3f9q2m",
    substrate="desk",
    consent="consent-7k3f9q2m",
    run="run-1",
    state=SwapState.planned,
    commit="c1",
    image=NEW_IMAGE,
    boot_id="boot-1",
    old_box="agent",
    new_box="moss-desk-7k3f9q2m",
    planned_at=T0,
)
GOOD = LastGood(substrate="desk", image=OLD_IMAGE, commit="c0", box="agent", recorded_at=T0)
PASSED, FAILED = Verdict(True, "Three probes passed."), Verdict(False, "No heartbeat.")
ACTION_LIMIT = 40
STOP_OLD, STOP_NEW = (Action.stop, "agent"), (Action.stop, SWAP.new_box)
DROP_OLD, DROP_NEW, DROP_BACK = (Action.drop, "agent"), (Action.drop, SWAP.new_box), (Action.drop, back_box(SWAP))


def box(name: str, image: str, how: str, boot_id: str = "") -> BoxState | None:
    if how == "absent":
        return None
    code = 1 if how == "exited" else None
    return BoxState(name, image, how == "running", {label.BOOT_ID: boot_id}, exit_code=code)


def old_box(how: str) -> BoxState | None:
    return box("agent", OLD_IMAGE, how)


def fresh_box(how: str) -> BoxState | None:
    return box(SWAP.new_box, NEW_IMAGE, how, SWAP.boot_id)


def scene(state: SwapState, old: str = "running", new: str = "created", back: str = "absent") -> Scene:
    return Scene(
        swap=SWAP.model_copy(update={"state": state}),
        live_box="agent",
        good=GOOD,
        old=old_box(old),
        new=fresh_box(new),
        back=box(back_box(SWAP), OLD_IMAGE, back),
    )


@pytest.mark.parametrize(
    ("seen", "action"),
    [
        (scene(SwapState.planned, new="absent"), Action.create_new),
        (scene(SwapState.planned), Action.begin),
        (replace(scene(SwapState.planned), talking=True), Action.drain),
        (replace(scene(SwapState.planned, new="absent"), talking=True), Action.create_new),
        (replace(scene(SwapState.planned), talking=True, objection="The image is gone."), Action.void),
        (replace(scene(SwapState.stopping), talking=True), STOP_OLD),
        (replace(scene(SwapState.planned), objection="The image is gone."), Action.void),
        (scene(SwapState.planned, new="running"), Action.create_new),
        (replace(scene(SwapState.planned), new=box(SWAP.new_box, NEW_IMAGE, "created", "another")), Action.create_new),
        (replace(scene(SwapState.planned), new=box(SWAP.new_box, OLD_IMAGE, "created", "boot-1")), Action.create_new),
        (scene(SwapState.stopping), STOP_OLD),
        (scene(SwapState.stopping, old="exited"), Action.begin_starting),
        (scene(SwapState.stopping, old="absent"), Action.begin_starting),
        (scene(SwapState.stopping, old="exited", new="absent"), Action.give_up),
        (scene(SwapState.starting, old="exited"), Action.start_new),
        (scene(SwapState.starting, old="running"), STOP_OLD),
        (scene(SwapState.starting, old="exited", new="running"), Action.start_new),
        (scene(SwapState.starting, old="exited", new="absent"), Action.give_up),
        (scene(SwapState.probing, old="exited", new="running"), Action.probe_new),
        (scene(SwapState.probing, old="running", new="running"), STOP_OLD),
        (scene(SwapState.probing, old="exited", new="exited"), Action.give_up),
        (replace(scene(SwapState.probing, old="exited", new="running"), new_verdict=PASSED), Action.commit),
        (replace(scene(SwapState.probing, old="exited", new="exited"), new_verdict=PASSED), Action.give_up),
        (replace(scene(SwapState.probing, old="exited", new="running"), new_verdict=FAILED), Action.give_up),
        (scene(SwapState.restoring, old="exited", new="running"), STOP_NEW),
        (scene(SwapState.restoring, old="exited", new="exited"), Action.try_old),
        (scene(SwapState.restoring, old="exited", new="absent"), Action.try_old),
        (scene(SwapState.restoring, old="running", new="absent"), Action.try_old),
        (replace(scene(SwapState.restoring, new="absent"), old_verdict=PASSED), Action.accept),
        (replace(scene(SwapState.restoring, new="absent"), old_verdict=FAILED), STOP_OLD),
        (replace(scene(SwapState.restoring, old="exited", new="absent"), old_verdict=FAILED), Action.try_back),
        (replace(scene(SwapState.restoring, old="exited", new="absent"), old_verdict=PASSED), Action.try_back),
        (scene(SwapState.restoring, old="absent", new="absent"), Action.try_back),
        (
            replace(scene(SwapState.restoring, new="absent"), good=GOOD.model_copy(update={"image": "sha256:else"})),
            STOP_OLD,
        ),
        (scene(SwapState.restoring, old="exited", new="absent", back="running"), Action.try_back),
        (
            replace(scene(SwapState.restoring, "exited", "absent", "running"), back_verdict=PASSED),
            Action.accept,
        ),
        (replace(scene(SwapState.restoring, "exited", "absent", "exited"), back_verdict=PASSED), Action.give_in),
        (replace(scene(SwapState.restoring, "exited", "absent", "running"), back_verdict=FAILED), Action.give_in),
        (replace(scene(SwapState.live, "exited", "running"), live_box=SWAP.new_box), DROP_OLD),
        (replace(scene(SwapState.live, "absent", "running"), live_box=SWAP.new_box), Action.done),
        (scene(SwapState.restored, "running", "created"), DROP_NEW),
        (scene(SwapState.restored, "running", "absent"), Action.done),
        (
            replace(scene(SwapState.restored, "exited", "absent", "running"), live_box=back_box(SWAP)),
            DROP_OLD,
        ),
        (scene(SwapState.restored, "running", "absent", "exited"), DROP_BACK),
        (scene(SwapState.stuck, "exited", "exited", "exited"), Action.done),
    ],
)
def test_every_state_has_its_next_action(seen: Scene, action: Action | tuple[Action, str]) -> None:
    step = next_action(seen)
    assert (step.action, step.box) == (action if isinstance(action, tuple) else (action, ""))


@dataclass
class World:
    """An engine and a store as small as they can be. `steps` yields between any two effects: there Moss may die."""

    state: SwapState
    old: str
    new: str
    back: str
    new_is_healthy: bool
    new_survives_start: bool
    old_comes_back: bool
    good_image_exists: bool
    objection: str | None = None
    live_box: str = "agent"
    touched_old: bool = False

    def scene(self, verdicts: dict[str, Verdict]) -> Scene:
        shown = scene(self.state, self.old, self.new, self.back)
        objection = self.objection if self.state is SwapState.planned else None
        return replace(shown, live_box=self.live_box, objection=objection, **verdicts)

    def move(self, after: SwapState) -> None:
        SWAP_MOVES.check(self.state, after, SWAP.id)
        self.state = after

    def start(self, which: str, survives: bool) -> None:
        others = {"old": self.old, "new": self.new, "back": self.back}
        assert all(how != "running" for name, how in others.items() if name != which), "two writers on the volume"
        setattr(self, which, "running" if survives else "exited")

    def steps(self, action: Action, box: str, verdicts: dict[str, Verdict]) -> Iterator[None]:
        match action:
            case Action.create_new:
                self.new = "absent"
                yield
                self.new = "created"
            case Action.begin:
                self.move(SwapState.stopping)
            case Action.stop if box == "agent":
                self.old, self.touched_old = "exited", True
            case Action.stop:
                assert box == SWAP.new_box
                self.new = "exited"
            case Action.begin_starting:
                self.move(SwapState.starting)
            case Action.start_new:
                if self.new != "running":
                    self.start("new", self.new_survives_start)
                yield
                self.move(SwapState.probing)
            case Action.probe_new:
                verdicts["new_verdict"] = PASSED if self.new_is_healthy else FAILED
            case Action.commit:
                self.move(SwapState.live)
                self.live_box = SWAP.new_box
            case Action.give_up:
                self.move(SwapState.restoring)
            case Action.try_old:
                if self.old != "running":
                    self.start("old", self.old_comes_back)
                yield
                verdicts["old_verdict"] = PASSED if self.old_comes_back and self.old == "running" else FAILED
            case Action.try_back:
                if self.back == "absent" and self.good_image_exists:
                    self.back = "created"
                    yield
                if self.back in {"created", "exited"}:
                    self.start("back", survives=True)
                    yield
                verdicts["back_verdict"] = PASSED if self.back == "running" else FAILED
            case Action.accept:
                self.move(SwapState.restored)
                if self.back != "absent":
                    self.live_box = back_box(SWAP)
            case Action.give_in:
                self.move(SwapState.stuck)
            case Action.void:
                self.move(SwapState.restored)
            case Action.drop:
                setattr(self, {"agent": "old", SWAP.new_box: "new", back_box(SWAP): "back"}[box], "absent")
            case Action.done:
                raise AssertionError("done is no step")
        yield


def play(world: World, crashes: frozenset[int]) -> None:
    """Perform to the end. At each step whose number is in `crashes` Moss dies and forgets every verdict."""
    verdicts: dict[str, Verdict] = {}
    number = 0
    for _ in range(ACTION_LIMIT):
        step = next_action(world.scene(verdicts))
        if step.action is Action.done:
            return
        for _ in world.steps(step.action, step.box, verdicts):
            number += 1
            if number in crashes:
                verdicts = {}
                break
    raise AssertionError(f"no end in sight: {world}")


def running(world: World) -> list[str]:
    return [name for name in ("old", "new", "back") if getattr(world, name) == "running"]


def existing(world: World) -> list[str]:
    return [name for name in ("old", "new", "back") if getattr(world, name) != "absent"]


hows = st.sampled_from(["absent", "created", "running", "exited"])
anywhere = st.frozensets(st.integers(1, 25), max_size=6)
worlds = st.builds(
    World,
    state=st.sampled_from(SWAP_IN_FLIGHT),
    old=st.sampled_from(["absent", "running", "exited"]),
    new=hows,
    back=st.just("absent"),
    new_is_healthy=st.booleans(),
    new_survives_start=st.booleans(),
    old_comes_back=st.booleans(),
    good_image_exists=st.booleans(),
)


@settings(max_examples=800, deadline=None)
@given(world=worlds, crashes=anywhere, back=hows)
def test_from_any_state_and_any_crash_a_swap_ends_with_one_right_box(
    world: World, crashes: frozenset[int], back: str
) -> None:
    if world.state is SwapState.restoring and world.new == "absent" and world.old != "running":
        world.back = back
    elif world.state is SwapState.planned:
        world.old = "running"
    elif world.old == "running":
        world.new = "created" if world.new == "running" else world.new  # two at once is nothing Moss can bring about
    play(world, crashes)

    match world.state:
        case SwapState.live:
            assert running(world) == ["new"] == existing(world)
            assert world.new_is_healthy
        case SwapState.restored:
            survivor = "back" if world.live_box == back_box(SWAP) else "old"
            assert running(world) == [survivor] == existing(world)
        case SwapState.stuck:
            assert not world.good_image_exists
            assert len(running(world)) <= 1
        case other:
            raise AssertionError(f"{other} is no end")


@settings(max_examples=200, deadline=None)
@given(crashes=anywhere)
def test_a_healthy_candidate_goes_live_however_often_moss_dies(crashes: frozenset[int]) -> None:
    world = World(SwapState.planned, "running", "absent", "absent", True, True, True, True)
    play(world, crashes)
    assert world.state is SwapState.live


@settings(max_examples=200, deadline=None)
@given(crashes=anywhere, survives=st.booleans())
def test_an_unhealthy_candidate_is_never_live_however_often_moss_dies(crashes: frozenset[int], survives: bool) -> None:
    world = World(SwapState.planned, "running", "absent", "absent", False, survives, True, True)
    play(world, crashes)
    assert world.state is SwapState.restored
    assert running(world) == ["old"] == existing(world)


@settings(max_examples=200, deadline=None)
@given(crashes=anywhere, new=hows, old=st.sampled_from(["running", "exited"]))
def test_a_void_swap_leaves_the_live_box_as_it_found_it(crashes: frozenset[int], new: str, old: str) -> None:
    world = World(SwapState.planned, old, new, "absent", True, True, True, True, objection="The image is gone.")
    play(world, crashes)
    assert world.state is SwapState.restored
    assert existing(world) == ["old"]
    assert (world.old, world.touched_old) == (old, False)


def test_an_engine_that_restarts_mid_swap_ends_in_the_last_good_box() -> None:
    world = World(SwapState.probing, "exited", "exited", "absent", True, True, True, True)
    play(world, frozenset())
    assert (world.state, running(world)) == (SwapState.restored, ["old"])


def forbid(**given: object) -> str | None:
    usual: dict[str, object] = {
        "live_box": "agent",
        "live_image": OLD_IMAGE,
        "old": old_box("running"),
        "needs_adoption": False,
        "has_image": True,
        "made_from": OLD_IMAGE,
        "shared": None,
    }
    swap = given.pop("swap", SWAP)
    return objection(swap, **{**usual, **given})  # type: ignore[arg-type]


def test_nothing_forbids_a_swap_of_a_sound_agent() -> None:
    assert forbid() is None
    assert forbid(old=old_box("exited")) is None, "a crashed agent may be swapped: that may be the cure"
    assert forbid(made_from=None) is None, "a rollback comes from no run"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"needs_adoption": True}, "until a human has looked at it; run `moss adopt`"),
        ({"live_box": "moss-desk-other"}, "went live in another box"),
        ({"old": None}, "The live box agent is gone"),
        ({"old": box("agent", NEW_IMAGE, "running")}, "runs bbbbbbbbbbbb, but aaaaaaaaaaaa went live"),
        ({"has_image": False}, "The image bbbbbbbbbbbb is gone"),
        ({"swap": SWAP.model_copy(update={"image": OLD_IMAGE})}, "is live already"),
        ({"shared": "The volume is open to others."}, "is open to others"),
        ({"made_from": "sha256:older"}, "Another version went live since this run began"),
    ],
)
def test_each_objection_is_one_sentence_with_its_reason(given: dict[str, object], said: str) -> None:
    assert said in str(forbid(**given))


DESK = Substrate.model_validate(
    {
        "name": "desk",
        "repository": "/srv/desk",
        "run": {
            "command": ["python", "-m", "desk"],
            "port": 8000,
            "publish": 18000,
            "env": {"MODE": "live", "MOSS_BOOT_ID": "stale"},
            "env_from": ["MODEL_KEY"],
            "volume": "desk-state",
            "state_path": "/data",
            "user": "1000",
        },
        "health": {"http": "/healthz"},
    }
)


def test_the_live_box_is_made_from_the_substrate_and_the_image_digest_alone() -> None:
    spec = box_spec(
        DESK,
        name="moss-desk-7k3f9q2m",
        image=NEW_IMAGE,
        commit="c1",
        boot_id="boot-1",
        owner="moss-a",
        swap="swap-7k3f9q2m",
        secrets={"MODEL_KEY": "sk-1", "OTHER": "x"},
    )
    assert (spec.image, spec.command, spec.user) == (NEW_IMAGE, ("python", "-m", "desk"), "1000")
    assert spec.env == {"MODE": "live", "MODEL_KEY": "sk-1", "MOSS_BOOT_ID": "boot-1"}
    assert (spec.port, spec.publish, spec.volume) == (8000, 18000, Volume("desk-state", "/data"))
    assert not spec.isolated
    assert spec.labels == {
        label.OWNER: "moss-a",
        label.SUBSTRATE: "desk",
        label.PURPOSE: "live",
        label.COMMIT: "c1",
        label.BOOT_ID: "boot-1",
        label.SWAP: "swap-7k3f9q2m",
    }


def test_a_missing_key_is_refused_by_name_before_anything_happens() -> None:
    with pytest.raises(BadInput, match="MODEL_KEY, which Moss's own environment lacks"):
        box_spec(DESK, name="b", image=NEW_IMAGE, commit="c", boot_id="b", owner="m", swap=None, secrets={})


def test_names_derive_from_substrate_and_consent_so_that_a_repeated_job_finds_them() -> None:
    assert swap_id("consent-7k3f9q2m") == "swap-7k3f9q2m"
    assert new_box("desk", "consent-7k3f9q2m") == SWAP.new_box
    assert back_box(SWAP) == "moss-desk-7k3f9q2m-back"
    assert back_boot_id(SWAP) != SWAP.boot_id
    assert short(NEW_IMAGE) == "bbbbbbbbbbbb"


def test_two_installations_have_agents_of_one_name_on_one_engine() -> None:
    mine, again, theirs = (adopted_box("desk", owner, 0) for owner in ("moss-7k3f9q2m", "moss-7k3f9q2m", "moss-other"))
    assert mine == again != theirs
    assert mine != adopted_box("desk", "moss-7k3f9q2m", 1)
    check_name(mine)
    check_name(adopted_box("d" * 40, "moss-7k3f9q2m", 1000))


def test_the_end_of_a_box_is_told_with_its_cause() -> None:
    assert ended(None) == "The box disappeared."
    assert ended(fresh_box("exited")) == "The agent ended with exit code 1."
    assert ended(fresh_box("created")) == "The agent is not running."
    killed = BoxState("b", NEW_IMAGE, False, {}, exit_code=137, out_of_memory=True)
    assert "out of memory" in ended(killed)
