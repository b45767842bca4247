"""The same over signed HTTP: real slack-bolt behind a real port; what is not signed, or signed long ago, is nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bot.adapters.slack.adapter import SlackAdapter
from bot.inbox import Inbox
from bot.sections import Slack
from bot.settings import Settings
from core.model.errors import BadInput, Unavailable
from core.store import Store
from core.store import inbox as letters
from tests.support.databases import opened
from tests.support.slack_server import SECRET, Fault, LoopbackSlack, call, loopback_slack, reaction
from tests.support.until import until

SETTINGS = Settings.model_construct()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened("sqlite", tmp_path) as store:
        yield store


@pytest.fixture
async def slack() -> AsyncIterator[LoopbackSlack]:
    async with loopback_slack() as slack:
        yield slack


@asynccontextmanager
async def answering(store: Store, slack: LoopbackSlack, inbox: Inbox | None = None) -> AsyncIterator[SlackAdapter]:
    settings = Slack.model_validate(slack.settings | {"signing_secret": SECRET, "port": 0})
    server = SlackAdapter(store, SETTINGS, [settings], inbox or Inbox(store, lambda: "test.first"), first_pause_s=0.05)
    server.listen()
    serving = asyncio.create_task(server.serve())
    try:
        yield server
    finally:
        server.stop()
        await asyncio.wait_for(serving, 30)


async def held(store: Store) -> int:
    async with store.reading() as db:
        return len(await letters.next_letters(db, "test.first", ["slack"], "", besides=[], limit=100))


async def test_signed_calls_of_every_kind_are_written_down(store: Store, slack: LoopbackSlack) -> None:
    async with answering(store, slack) as server:
        await until(lambda: server.health[0].connected)
        (port,) = server.ports
        press = slack.press({"action_id": "press:0", "value": "approve consent-1"}, "1.1")
        assert await call(port, slack.envelope(reaction("1790000000.000100"))) == 200
        assert await call(port, slack.command("status"), form=True) == 200
        assert await call(port, press, form=True) == 200
    assert await held(store) == 3


async def test_a_call_that_comes_again_counts_once_and_a_second_retry_may_be_the_first_to_arrive(
    store: Store, slack: LoopbackSlack
) -> None:
    for _ in range(2):  # the second time after a restart
        async with answering(store, slack) as server:
            await until(lambda server=server: server.health[0].connected)
            for retry in (2, 3):
                body = slack.envelope(reaction("1790000000.000100"), "Ev1")
                assert await call(server.ports[0], body, retry=retry) == 200
    assert await held(store) == 1


async def test_the_address_proves_itself_to_slack(store: Store, slack: LoopbackSlack) -> None:
    async with answering(store, slack) as server:
        assert await call(server.ports[0], {"type": "url_verification", "challenge": "c"}) == 200


@pytest.mark.parametrize("forged", [{"secret": "another"}, {"age_s": 301}, {"age_s": -301}])
@pytest.mark.parametrize("kind", ["event", "press", "command", "ssl_check"])
async def test_a_forged_or_stale_call_is_refused(
    store: Store, slack: LoopbackSlack, forged: dict[str, float], kind: str
) -> None:
    async with answering(store, slack) as server:
        await until(lambda: server.health[0].connected)
        press = slack.press({"action_id": "press:0", "value": "approve consent-1"}, "1.1")
        body = {
            "event": slack.envelope(reaction("1790000000.000100")),
            "press": press,
            "command": slack.command("approve"),
            "ssl_check": slack.command("approve") | {"ssl_check": "1"},
        }[kind]
        assert await call(server.ports[0], body, form=kind != "event", **forged) == 401  # type: ignore[arg-type]
    assert await held(store) == 0


async def test_what_comes_before_moss_knows_its_workspace_is_not_acknowledged(
    store: Store, slack: LoopbackSlack
) -> None:
    slack.fail("auth.test", *[Fault("internal_error", 500)] * 2)
    async with answering(store, slack) as server:
        body = slack.envelope(reaction("1790000000.000100"))
        first = await call(server.ports[0], body)
        await until(lambda: server.health[0].connected)
        assert (first, await call(server.ports[0], body)) == (500, 200)
    assert await held(store) == 1


async def test_what_cannot_be_written_down_is_not_acknowledged(store: Store, slack: LoopbackSlack) -> None:
    class Away(Inbox):
        async def take(self, event: object) -> bool:
            raise Unavailable("The database is away.")

    async with answering(store, slack, Away(store, lambda: "test.first")) as server:
        await until(lambda: server.health[0].connected)
        assert await call(server.ports[0], slack.envelope(reaction("1790000000.000100"))) == 500
        assert await call(server.ports[0], slack.command("status"), form=True) == 500


async def test_a_port_that_is_taken_is_one_sentence(store: Store, slack: LoopbackSlack) -> None:
    async with answering(store, slack) as server:
        settings = Slack.model_validate(slack.settings | {"signing_secret": SECRET, "port": server.ports[0]})
        second = SlackAdapter(store, SETTINGS, [settings], Inbox(store, lambda: "test.second"))
        with pytest.raises(BadInput, match="choose another `port`"):
            second.listen()


def test_a_workspace_without_a_way_to_be_reached_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="app_token"):
        Slack.model_validate({"bot_token": "xoxb-test"})


async def test_the_secret_of_one_app_does_not_speak_for_the_workspace_of_another(
    store: Store, slack: LoopbackSlack
) -> None:
    """Nor does it matter whether that workspace is known already."""
    async with loopback_slack() as other:
        other.auth = {"team_id": "T2", "user_id": "U2MOSS"}
        apps = [
            Slack.model_validate(slack.settings | {"signing_secret": SECRET, "port": 0}),
            Slack.model_validate(other.settings | {"signing_secret": "the other one", "port": 0}),
        ]
        server = SlackAdapter(store, SETTINGS, apps, Inbox(store, lambda: "test.first"), first_pause_s=0.05)
        server.listen()
        serving = asyncio.create_task(server.serve())
        try:
            await until(lambda: all(each.connected for each in server.health))
            press = slack.press({"action_id": "press:0", "value": "approve consent-1"}, "1.1")
            forged = press | {"team": {"id": "T2"}, "user": {"id": "UBEN", "team_id": "T2"}}
            first, second = server.ports
            assert await call(first, forged, form=True) == 200
            assert await held(store) == 0
            assert await call(second, forged, secret="the other one", form=True) == 200
            assert await held(store) == 1
        finally:
            server.stop()
            await asyncio.wait_for(serving, 30)
