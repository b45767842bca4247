"""From a mention to an approval in Slack: real slack-bolt by both of its ways, the real inbox, a live little agent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bot import inbox
from bot.adapters.slack.adapter import SlackAdapter
from bot.announcer import Announcer
from bot.reasons import KEPT
from bot.receive import give_up, receive
from bot.sections import Slack
from core.model.consent import ConsentState
from core.model.evidence import Chunk
from core.store import Store, batches, consents, swaps
from tests.support.slack_server import CHANNEL, SECRET, Fault, LoopbackSlack, call, loopback_slack, reaction, said
from tests.support.swaps import asked_candidate
from tests.support.until import until
from tests.test_converse import talking

PEOPLE = {"anna": ("slack:T1/UANNA",), "ben": ("slack:T1/UBEN",), "mary": ("slack:T1/UMARY",)}
FORMS = ("slash_commands", "interactive")


@dataclass
class Lived:
    slack: LoopbackSlack
    server: SlackAdapter
    store: Store
    moss: Any

    async def send(self, type_: str, payload: dict[str, Any]) -> None:
        if self.server.ports:
            assert await call(self.server.ports[0], payload, form=type_ in FORMS) == 200
        else:
            await self.slack.deliver(type_, payload)

    async def event(self, event: dict[str, Any], id: str = "") -> None:
        await self.send("events_api", self.slack.envelope(event, id))

    async def private(self, words: str, **more: str) -> str:
        """What is answered to a command."""
        before = len(self.slack.answers)
        await self.send("slash_commands", self.slack.command(words, **more))
        await until(lambda: len(self.slack.answers) > before)
        return str(self.slack.answers[-1]["text"])

    async def chunks(self) -> list[Chunk]:
        async with self.store.reading() as db:
            return [chunk for batch in await batches.listing(db) for chunk in await batches.chunks(db, batch.id)]

    async def answered(self, text: str, stamp: str) -> str:
        """The id of the agent's reply to it."""
        await self.event(said(f"<@UMOSS> {text}", stamp))
        replies = lambda: [ts for (_, ts), one in self.slack.messages.items() if one.get("thread_ts") == stamp]  # noqa: E731
        await until(replies)
        return replies()[0]


@asynccontextmanager
async def lived(tmp: Path, way: str, **more: str) -> AsyncIterator[Lived]:
    async with talking(tmp) as chat, loopback_slack() as slack:
        chat.configure(people=PEOPLE)
        chat.permit(maintainers=frozenset({"mary", "slack:T1/S77"}))
        chat.configure(announce=chat.moss.settings.announce.model_copy(update={"place": f"slack/T1/{CHANNEL}"}))
        reached = {"app_token": "xapp-test"} if way == "socket" else {"signing_secret": SECRET, "port": 0}
        settings = Slack.model_validate(slack.settings | reached | more)
        server = SlackAdapter(chat.store, chat.moss.settings, [settings], chat.moss.inbox, first_pause_s=0.05)
        server.listen()
        moss = replace(chat.moss, chats={"slack": server.chat})
        announcer = Announcer(chat.store, moss.settings, moss.chats)
        tasks = [
            asyncio.create_task(server.serve()),
            asyncio.create_task(moss.inbox.work(partial(receive, moss), partial(give_up, moss), moss.chats)),
            asyncio.create_task(announcer.run()),
        ]
        try:
            await until(lambda: server.health[0].connected)
            yield Lived(slack, server, chat.store, moss)
        finally:
            server.stop()
            await moss.inbox.finish(1)
            announcer.stop()
            await asyncio.wait_for(asyncio.gather(*tasks), 20)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "PAUSES_S", (0.05,) * 5)


@pytest.mark.parametrize("way", ["socket", "http"])
async def test_a_mention_is_answered_flagged_and_its_repair_approved(tmp_path: Path, way: str) -> None:
    async with lived(tmp_path, way) as on:
        reply = await on.answered("Refund for A-1?", "1790000001.000100")
        shown = on.slack.messages[CHANNEL, reply]
        assert "Refund for A-1?" in shown["text"]
        assert {"1790000001.000100"} == {one["timestamp"] for one in on.slack.called("reactions.add")}
        await until(lambda: on.slack.signs == set())

        await on.event(reaction(reply, "-1::skin-tone-2"), id="Ev-flag")
        await on.event(reaction(reply, "-1::skin-tone-2"), id="Ev-flag")
        await until(lambda: on.slack.whispers)
        assert on.slack.whispers[0]["user"] == "U1"
        assert "that is flagged" in on.slack.whispers[0]["text"]
        await on.send("interactive", on.slack.shortcut(reply, user="U2"))
        await until(lambda: on.slack.views)
        values = {"kind": {"selected_option": {"value": "retrieval"}}, "reason": {"value": "It is 30 days."}}
        await on.send("interactive", on.slack.submission(on.slack.views[0], values, user="U2"))
        await until(lambda: on.slack.answers)
        (chunk,) = await on.chunks()
        assert (chunk.weight, sorted(str(flag.reason) for flag in chunk.flags)) == (2, ["It is 30 days.", "None"])
        assert chunk.transcript.user_turns()[-1].content == "Refund for A-1?"

        assert "evolve" in await on.private("evolv")  # a typo gets a suggestion
        assert "You may not" in await on.private("evolve", user="U1")
        on.slack.groups["S77"] = ["UGWEN"]
        assert "No run of little is under way" in await on.private("stop", user="UGWEN")
        assert "How things stand" in await on.private("status")

        async with on.store.reading() as db:
            live = await swaps.live_version(db, "little")
        assert live is not None
        consent = await asked_candidate(on.store, "little", live.image, "b" * 40, live.image)
        card = await the_card(on)
        approve = next(one for one in buttons(card) if one["value"].startswith("approve"))
        for person in ("UEVE", "UANNA"):
            before = len(on.slack.answers)
            pressed = on.slack.press({"action_id": approve["action_id"], "value": approve["value"]}, card["ts"], person)
            await on.send("interactive", pressed)
            await until(lambda before=before: len(on.slack.answers) > before)
        assert "not one of the approvers" in on.slack.answers[-2]["text"]
        assert "You approved this" in on.slack.answers[-1]["text"]
        async with on.store.reading() as db:
            assert (await consents.get(db, consent)).state is ConsentState.granted
        await until(lambda: not any(one["value"].startswith("approve") for one in buttons(card)))
        await until(lambda: any("Approved by anna" in text for text in on.slack.texts()))


async def test_words_in_the_thread_are_for_the_agent_unless_they_say_that_they_are_a_reason(tmp_path: Path) -> None:
    async with lived(tmp_path, "socket") as on:
        thread = "1790000001.000100"
        reply = await on.answered("Refund for A-1?", thread)
        await on.event(reaction(reply))
        await on.event(said(":-1: It is 30 days.", "1790000002.000100", thread_ts=thread))
        await until(lambda: len(on.slack.whispers) == 2)
        assert on.slack.whispers[1]["text"] == KEPT
        (chunk,) = await on.chunks()
        assert [flag.reason for flag in chunk.flags] == ["It is 30 days."]
        await on.event(said("And for A-2?", "1790000003.000100", thread_ts=thread))
        await until(lambda: len(on.slack.texts()) == 2)
        assert "And for A-2?" in on.slack.texts()[1]
        assert not any("30 days" in text for text in on.slack.texts())


async def test_an_agent_with_a_bot_of_its_own_is_watched_and_flagged_as_it_last_put_it(tmp_path: Path) -> None:
    async with lived(tmp_path, "socket", agent_user="UAGENT") as on:
        question, reply = "1790000001.000100", "1790000002.000100"
        spoken = said("Thinking …", reply, user="UAGENT", bot_id="BAGENT", subtype="bot_message", thread_ts=question)
        await on.event(spoken)
        await on.event(said("Never mind.", "1790000002.500000", thread_ts=question))
        edited = {"type": "message", "subtype": "message_changed", "channel": CHANNEL, "ts": "1790000003.000100"}
        inner = {name: value for name, value in spoken.items() if name not in ("channel", "channel_type")}
        await on.event(edited | {"message": inner | {"text": "No refunds."}, "previous_message": inner})
        await on.event(reaction(reply, at="1790000004.000100"))
        await until(lambda: on.slack.whispers)
        (chunk,) = await on.chunks()
        assert (chunk.turn, chunk.flagged.content) == (reply, "No refunds.")
        assert on.slack.messages == {}, "it speaks for itself"


async def test_complaints_that_came_and_went_while_moss_was_away_are_found(tmp_path: Path) -> None:
    async with lived(tmp_path, "socket") as on:
        kept, gone = [await on.answered(f"{n}?", f"179000000{n}.000100") for n in (1, 2)]
        await on.event(reaction(gone, user="U3"))
        await until(lambda: on.slack.whispers)
        on.slack.reactions[kept] = [{"name": "-1", "users": ["U1", "UMOSS"]}, {"name": "tada", "users": ["U2"]}]
        on.slack.fail("reactions.get", *[Fault("internal_error")] * 2)
        await on.server.catch_up("T1")
        await until(lambda: len(on.slack.whispers) >= 2)

        async def found() -> bool:
            chunks = await on.chunks()
            return {(chunk.turn, chunk.weight) for chunk in chunks} in ({(kept, 1)}, {(kept, 1), (gone, 0)})

        await until(found)
        on.slack.messages.clear()  # with its message a reaction goes too, and no complaint is taken back by that
        await on.server.catch_up("T1")
        await asyncio.sleep(0.3)
        assert await found()


async def the_card(on: Lived) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        return [one for one in on.slack.messages.values() if any("approve" in b["value"] for b in buttons(one))]

    await until(found)
    return found()[0]


def buttons(message: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [block for block in message.get("blocks", []) if block["type"] == "actions"]
    return [button for row in rows for button in row["elements"] if "value" in button]


async def test_a_storm_of_limits_and_a_lost_answer_show_each_reply_once(tmp_path: Path) -> None:
    async with lived(tmp_path, "socket") as on:
        limits = [Fault("ratelimited", 429, retry_after="0.2")] * 2
        on.slack.fail("chat.postMessage", *limits, Fault(after=True))
        reply = await on.answered("One?", "1790000001.000100")
        await on.event(reaction(reply))
        await until(lambda: on.slack.whispers)
        assert len(on.slack.messages) == 1
        assert len(await on.chunks()) == 1


async def test_a_flag_on_a_person_gets_a_private_friendly_answer(tmp_path: Path) -> None:
    async with lived(tmp_path, "socket") as on:
        await on.answered("One?", "1790000001.000100")
        await on.event(reaction("1790000001.000100"))
        await until(lambda: on.slack.whispers)
        assert "person's" in on.slack.whispers[0]["text"]


async def test_commands_are_acknowledged_within_a_second_while_the_agent_is_busy(tmp_path: Path) -> None:
    async with lived(tmp_path, "socket") as on:
        for n in range(10):
            await on.event(said(f"<@UMOSS> question {n}", f"17900000{n:02}.000100"))
        async with asyncio.timeout(1):
            await on.slack.deliver("slash_commands", on.slack.command("status"))
        await until(lambda: len(on.slack.messages) == 10, 60)
