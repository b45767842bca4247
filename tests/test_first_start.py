"""The first start of a built-in Moss: no token is lost, whenever it dies, and none is told to a log."""

import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bot.built_in import OPERATOR, USER
from bot.first_start import first_tokens, rest, shown, tokens_file, welcome
from bot.greeting import greeting, tokens_wait
from bot.verbs import Moss
from core.clock import system_clock
from core.store import Store, people, substrates
from tests.support.databases import opened
from tests.support.swaps import make_live
from tests.test_terminal_output import start, text
from tests.test_wake import DESK, ONE, a_host


class Killed(BaseException):
    pass


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened("sqlite", tmp_path, system_clock) as store:
        yield store


async def all_are_good(store: Store, tokens: dict[str, str]) -> bool:
    async with store.reading() as db:
        return {name: await people.by_token(db, token) for name, token in tokens.items()} == {
            OPERATOR: OPERATOR,
            USER: USER,
        }


async def test_tokens_wait_in_a_file_of_their_owner_until_they_were_shown(store: Store, tmp_path: Path) -> None:
    tokens = await first_tokens(store, tmp_path)
    assert await all_are_good(store, tokens)
    file = tokens_file(tmp_path)
    assert json.loads(file.read_text()) == tokens
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert await first_tokens(store, tmp_path) == tokens, "the one before died before it showed them"
    shown(tmp_path)
    assert not file.exists()
    assert await first_tokens(store, tmp_path) == {}
    assert not file.exists()


@pytest.mark.parametrize("at", range(1, 6))
async def test_wherever_moss_dies_the_next_start_shows_tokens_that_are_good(
    store: Store, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = 0
    replace, add = os.replace, people.add

    def moment() -> None:
        nonlocal moments
        moments += 1
        if moments == at:
            raise Killed

    def replacing(self: Path, target: Path) -> None:
        moment()
        replace(self, target)

    async def adding(store: Store, name: str, who: str, token: str) -> str:
        moment()
        made = await add(store, name, who, token)
        moment()
        return made

    monkeypatch.setattr(Path, "replace", replacing)
    monkeypatch.setattr(people, "add", adding)
    with pytest.raises(Killed):
        await first_tokens(store, tmp_path)
    monkeypatch.undo()
    tokens = await first_tokens(store, tmp_path)
    assert await all_are_good(store, tokens)
    assert json.loads(tokens_file(tmp_path).read_text()) == tokens


async def test_a_token_that_was_removed_before_it_was_shown_is_never_good_again(store: Store, tmp_path: Path) -> None:
    first = await first_tokens(store, tmp_path)
    await people.remove(store, OPERATOR)
    second = await first_tokens(store, tmp_path)
    assert second[USER] == first[USER]
    assert second[OPERATOR] != first[OPERATOR]
    assert await all_are_good(store, second)
    await people.remove(store, USER)
    mine = await people.add(store, USER)
    third = await first_tokens(store, tmp_path)
    assert third == {OPERATOR: second[OPERATOR]}, "the other was shown to whoever made it"
    assert mine not in tokens_file(tmp_path).read_text()


async def test_a_file_that_cannot_be_read_keeps_nobody_out(store: Store, tmp_path: Path) -> None:
    tokens_file(tmp_path).write_text("[")
    assert await all_are_good(store, await first_tokens(store, tmp_path))


async def test_the_desk_is_woken_and_rests_and_is_left_to_an_approver_while_a_human_has_to_come(
    store: Store, tmp_path: Path
) -> None:
    await make_live(store, DESK, ONE)
    host = a_host(running=False)
    chosen = SimpleNamespace(data=tmp_path, substrate_named=lambda name: DESK)
    moss = cast(Moss, SimpleNamespace(store=store, host=host, settings=chosen))
    assert (await welcome(moss)).problem is None
    assert host.running() == [ONE.box]
    await rest(moss)
    assert host.running() == []
    async with store.changing("desk") as change:
        await substrates.set_needs_adoption(change, True, "moss", "it is stuck")
    assert "waits for an approver" in str((await welcome(moss)).problem)
    assert host.running() == []


def test_a_log_is_told_where_the_tokens_are_and_a_terminal_what_they_are() -> None:
    told = text(tokens_wait(start(tokens_file="/srv/moss-data/first-tokens.json")))
    assert "/srv/moss-data/first-tokens.json" in told
    assert "moss_" not in told
    assert "/enter#moss_1" in text(greeting(start(tokens={OPERATOR: "moss_1"})))
