"""What the control socket answers: a request in JSON, checked, becomes one verb, and what came of it."""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from bot import VERSION, verbs
from bot.control import KEEPALIVE_S, Answer
from bot.verbs import Moss
from core.consent import Decision, DecisionKind
from core.model.errors import BadInput, Refused
from core.model.events import Noun
from core.model.evidence import FailureKind
from core.model.mistakes import in_words
from core.model.run import Dial
from core.model.transcript import Place
from core.model.value import Value
from core.store import facts, runs
from core.store.columns import plain_in

LOOK_S = 5.0
"""How long a fact that another process wrote may stay unseen; those of this one are told at once."""
FACTS_AT_ONCE = 200


class Nothing(Value):
    pass


class OfRun(Value):
    run: str


class Evolve(Value):
    substrate: str | None = None
    batch: str | None = None
    depth: Dial | None = None


class Decline(Value):
    run: str
    """Or the consent of a rollback."""
    reason: str = Field(min_length=1)


class Rollback(Value):
    substrate: str | None = None
    version: int | None = None


class Adopt(Value):
    substrate: str | None = None
    commit: str | None = None


class Release(Value):
    substrate: str | None = None
    stop: bool = False


class Complaint(Value):
    place: Place
    message: str | None = None
    reason: str = ""
    kind: FailureKind = FailureKind.other


class Import(Value):
    substrate: str | None = None
    lines: tuple[str, ...]


def answers(moss: Moss) -> dict[str, Answer]:
    """`who` is the person behind the user at the other end of the socket; a token proves a person."""

    async def hello(_: Nothing, who: str, token: str | None) -> Any:
        chats = [_json(each) for each in moss.health()]
        return {"version": VERSION, "pid": os.getpid(), "host": moss.host.name, "you": who, "chats": chats}

    async def look(ask: OfRun, who: str, token: str | None) -> Any:
        async with moss.store.reading() as db:
            return {"run": _json(await runs.get(db, ask.run))}

    async def evolve(ask: Evolve, who: str, token: str | None) -> Any:
        run = await verbs.evolve(moss, ask.substrate, ask.batch, ask.depth, who)
        async with moss.store.reading() as db:
            queued = await facts.about(db, Noun.run, run.id)
        return {"run": _json(run), "seq": queued[0].seq - 1}

    async def stop(ask: OfRun, who: str, token: str | None) -> Any:
        return {"run": _json(await verbs.stop(moss, ask.run, who))}

    async def restart(ask: OfRun, who: str, token: str | None) -> Any:
        return {"run": _json(await verbs.restart(moss, ask.run, who))}

    async def approve(ask: OfRun, who: str, token: str | None) -> Any:
        person = await verbs.person_of(moss, token)
        return _decided(await verbs.decide(moss, ask.run, person, True))

    async def decline(ask: Decline, who: str, token: str | None) -> Any:
        person = await verbs.person_of(moss, token)
        return _decided(await verbs.decide(moss, ask.run, person, False, ask.reason))

    async def rollback(ask: Rollback, who: str, token: str | None) -> Any:
        person = await verbs.person_of(moss, token)
        asked, decision = await verbs.rollback(moss, ask.substrate, ask.version, person)
        if decision.kind is DecisionKind.refused:
            # The question stands; only the asker's own vote does not count.
            return {"kind": "asked", "sentence": f"{asked.id} is asked. {decision.sentence}", "consent": asked.id}
        return {**_decided(decision), "consent": asked.id}

    async def adopt(ask: Adopt, who: str, token: str | None) -> Any:
        return {"version": _json(await verbs.adopt(moss, ask.substrate, ask.commit, who, token))}

    async def release(ask: Release, who: str, token: str | None) -> Any:
        return asdict(await verbs.release(moss, ask.substrate, who, token, stop=ask.stop))

    async def flag(ask: Complaint, who: str, token: str | None) -> Any:
        raised = await verbs.flag(moss, ask.place, ask.message, who, ask.reason, kind=ask.kind)
        return {"batch": _json(raised.batch), "chunk": _json(raised.chunk), "late": raised.late}

    async def add_evidence(ask: Import, who: str, token: str | None) -> Any:
        touched = await verbs.add_evidence(moss, ask.substrate, list(ask.lines), who)
        return {"lines": sum(bool(line.strip()) for line in ask.lines), "batches": [_json(batch) for batch in touched]}

    def checked(kind: type[V], verb: Callable[[V, str, str | None], Awaitable[Any]]) -> Answer:
        async def answer(payload: dict[str, Any], who: str, token: str | None) -> Any:
            return await verb(_parsed(kind, payload), moss.settings.person(who), token)

        return answer

    return {
        "hello": checked(Nothing, hello),
        "look": checked(OfRun, look),
        "evolve": checked(Evolve, evolve),
        "stop": checked(OfRun, stop),
        "restart": checked(OfRun, restart),
        "approve": checked(OfRun, approve),
        "decline": checked(Decline, decline),
        "rollback": checked(Rollback, rollback),
        "adopt": checked(Adopt, adopt),
        "release": checked(Release, release),
        "flag": checked(Complaint, flag),
        "import": checked(Import, add_evidence),
    }


V = TypeVar("V", bound=Value)


def _parsed(kind: type[V], payload: dict[str, Any]) -> V:
    try:
        return kind.model_validate(plain_in(payload))
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the request"
        raise BadInput(f"The request is wrong: `{where}`: {in_words(first)}.") from None


def _json(value: Value) -> dict[str, Any]:
    return value.model_dump(mode="json")


def _decided(decision: Decision) -> dict[str, Any]:
    if decision.kind in (DecisionKind.refused, DecisionKind.expired):
        raise Refused(decision.sentence)
    return {"kind": decision.kind, "sentence": decision.sentence}


def follow(moss: Moss, substrate: str | None, since: int | None) -> AsyncIterator[dict[str, Any] | None]:
    """Facts of one substrate as they are appended, whoever appends them; None when nothing happened for a while."""
    return _facts(moss, moss.settings.substrate_named(substrate).name, since or 0)


async def _facts(moss: Moss, substrate: str, seq: int) -> AsyncIterator[dict[str, Any] | None]:
    changes, spoke = -1, time.monotonic()
    while True:
        changes = await moss.store.wait_for_change(changes, LOOK_S, of=substrate)
        async with moss.store.reading() as db:
            fresh = await facts.since(db, substrate, seq, FACTS_AT_ONCE)
        for fact in fresh:
            seq = fact.seq
            yield _json(fact)
        if len(fresh) == FACTS_AT_ONCE:
            changes = -1
        now = time.monotonic()
        if fresh:
            spoke = now
        elif now - spoke >= KEEPALIVE_S:
            spoke = now
            yield None
