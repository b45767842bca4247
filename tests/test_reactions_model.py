"""Thousands of reactions of two hundred people on a thousand replies, brought twice, out of order and withdrawn, to a
Moss that is killed in the middle: what it holds in the end is what a simple model says. `make sweep` brings ten
thousand."""

import asyncio
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest

from bot.chat import Reacted
from core.clock import system_clock
from core.model.transcript import Message
from core.store import batches, turns
from core.store.store import Store, upgrade
from flags.emoji import name_of
from tests.support.chat_moss import chat_moss
from tests.support.databases import START
from tests.support.mortal_reactions import LIMIT_S
from tests.support.paper_chat import PAPER
from tests.support.world import ROOT

PEOPLE, REPLIES, CHANNELS = 200, 1000, 10
EMOJI = ("thumbsdown", "thumbsdown::skin-tone-4", "x", "triangular_flag_on_post", "tada")
"""The first two are one, and the last is no complaint."""
LIVES, LIFE_S = 3, (1.5, 3.0)

Standing = dict[tuple[str, str], set[str]]
"""Channel and reply -> who complains about it."""


def events(chance: random.Random, count: int) -> list[Reacted]:
    """As they happened: whoever takes an emoji away has put it there."""
    there: set[tuple[int, int, str]] = set()
    found = []
    for n in range(count):
        if there and chance.random() < 0.3:
            who, reply, emoji = chance.choice(sorted(there)[-400:])
            there.discard((who, reply, emoji))
        else:
            who, reply, emoji = chance.randrange(PEOPLE), chance.randrange(REPLIES), chance.choice(EMOJI)
            if (who, reply, emoji) in there:
                continue
            there.add((who, reply, emoji))
        found.append(
            Reacted(
                id=f"e{n}",
                place=PAPER.model_copy(update={"channel": channel(reply)}),
                person=f"paper:p{who}",
                at=START + timedelta(milliseconds=n),
                message=f"r{reply}",
                emoji=emoji,
                added=(who, reply, emoji) in there,
            )
        )
    return found


def channel(reply: int) -> str:
    return f"c{reply % CHANNELS}"


def model(happened: Iterable[Reacted]) -> Standing:
    """Everybody's last word on each emoji; any complaint left is one flag."""
    last: dict[tuple[str, str, str, str], bool] = {}
    for event in happened:
        last[event.place.channel, event.message, event.person, name_of(event.emoji)] = event.added
    standing: Standing = defaultdict(set)
    for (where, message, person, emoji), added in last.items():
        if added and emoji != "tada":
            standing[where, message].add(person)
    return dict(standing)


def delivered(happened: list[Reacted], chance: random.Random) -> list[Reacted]:
    """Late by up to 40 places, and every tenth one twice."""
    twice = [event for event in happened for _ in range(2 if chance.random() < 0.1 else 1)]
    return [event for _, event in sorted(enumerate(twice), key=lambda one: one[0] + chance.uniform(0, 40))]


async def held(store: Store) -> tuple[Standing, dict[tuple[str, str], int], int]:
    """Who complains, the weight of each chunk that anybody complains about, and how many chunks there are of a turn."""
    standing, weights, most = Standing(), {}, 0
    chunks_of: dict[tuple[str, str], int] = defaultdict(int)
    async with store.reading() as db:
        for batch in await batches.listing(db, "little"):
            for chunk in await batches.chunks(db, batch.id):
                key = chunk.place.channel, chunk.turn
                chunks_of[key] += 1
                people = {flag.person for flag in chunk.flags if flag.withdrawn_at is None}
                if people:
                    standing[key], weights[key] = people, chunk.weight
    most = max(chunks_of.values())
    return standing, weights, most


@pytest.mark.parametrize("number", [300, pytest.param(10_000, marks=pytest.mark.sweep)])
async def test_whatever_happens_on_the_way_flags_weights_and_batches_are_those_of_a_simple_model(
    tmp_path: Path, number: int
) -> None:
    chance = random.Random(number)
    happened = events(chance, number)
    url = f"sqlite:///{tmp_path / 'moss.db'}"
    await upgrade(url)
    store = await Store.open(url, system_clock)
    try:
        async with chat_moss(store, tmp_path), store.writing() as db:
            for n in range(REPLIES):
                place = PAPER.model_copy(update={"channel": channel(n)})
                said = Message(role="assistant", content=f"Reply {n}.", id=f"r{n}")
                await turns.keep(db, store.now(), "little", place, said=said, seconds=0.5)
        lines = [event.model_dump_json() for event in delivered(happened, chance)]
        (tmp_path / "events.jsonl").write_text("\n".join(lines))

        deaths = 0
        for _ in range(LIVES):
            child = start(tmp_path)
            with_luck = chance.uniform(*LIFE_S)
            try:
                await asyncio.to_thread(child.wait, with_luck)
            except subprocess.TimeoutExpired:
                child.kill()
                deaths += 1
            child.wait()
        began = time.monotonic()
        child = start(tmp_path)
        try:
            assert await asyncio.to_thread(child.wait, LIMIT_S) == 0
        finally:
            child.kill()
        print(f"{len(lines)} deliveries, {deaths} deaths, the last life took {time.monotonic() - began:.0f} s")

        expected = model(happened)
        standing, weights, most = await held(store)
        assert deaths > 0
        assert standing == expected
        assert weights == {key: len(people) for key, people in expected.items()}
        assert most == 1, "one open batch for each conversation, and one chunk for each turn"
        async with store.reading() as db:
            listed = await batches.listing(db, "little")
        assert sorted(batch.place.channel for batch in listed) == sorted({channel(n) for n in range(CHANNELS)})
    finally:
        await store.close()


def start(root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.support.mortal_reactions", str(root)], cwd=ROOT)
