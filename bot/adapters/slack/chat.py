"""Slack as one of Moss's chats: what Moss and the agent say there."""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from bot.adapters.missed import Seen, Standing
from bot.adapters.sent import Sent
from bot.adapters.slack.blocks import TEXT_CHARS, blocks, escaped, parts, shortened, summary
from bot.adapters.slack.events import PLATFORM, Workspace, moment_of, plain
from bot.adapters.slack.payloads import MessageEvent
from bot.adapters.slack.web import NeverCame, SlackRefused, Web
from bot.chat import Card, Picture
from core.model.errors import MossError, Refused, Unavailable
from core.model.transcript import Message, Place

log = structlog.get_logger(__name__)

WORKING = "hourglass_flowing_sand"
MARK = "moss_post"
"""The name of the metadata by which Moss knows its own messages again."""
LOOKED_THROUGH = 50
"""How many messages are looked through for one that may have been posted before a crash."""
CLOCKS_APART_S = 300.0
HISTORY_LIMIT = 100
LONGEST_THREAD = 200
PICTURES = 100
"""How many pictures are remembered, so that an edit does not upload them again."""
PICTURE_TRIES = 3
"""Slack may take a moment to make a file ready for a message."""
PICTURE_PAUSE_S = 1.0
GROUP = re.compile(r"S[A-Z0-9]{2,}")
GROUP_S = 60.0
"""For how long Slack's word on who is in a group counts. When it cannot be asked again, nobody is."""
NOT_READY = frozenset({"invalid_blocks", "invalid_blocks_format", "file_not_found", "slack_file_not_found"})


@dataclass(slots=True)
class Voice:
    """One workspace, as Moss speaks in it."""

    web: Web
    workspace: Workspace
    history_per_minute: int
    asked: deque[float] = field(default_factory=deque)
    pictures: OrderedDict[str, str] = field(default_factory=OrderedDict)
    groups: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict)
    """Who is in which user group, and when Slack said so."""


class SlackChat:
    platform = PLATFORM

    def __init__(self, sent: Sent) -> None:
        self._sent = sent
        self._voices: dict[str, Voice] = {}
        self.expects_more = True
        """Some workspace was never reached yet, so nobody knows its name."""

    def join(self, voice: Voice) -> None:
        self._voices[voice.workspace.team] = voice

    def parts(self, text: str) -> list[str]:
        return parts(text)

    async def post(self, place: Place, what: Card | str, key: str, *, as_agent: str = "") -> str:
        voice = self._voice(place)
        note = await self._sent.begin(key)
        if note.message:
            return note.message
        mark = {"event_type": MARK, "event_payload": {"key": _name(key), "agent": as_agent}}
        message = await self._find(voice, place, key, note.since) if note.since else ""
        if not message:
            to = {"channel": place.channel} | ({"thread_ts": place.thread} if place.thread else {})
            try:
                answer = await self._say(voice, "chat.postMessage", what, **to, metadata=mark)
            except (SlackRefused, NeverCame):
                await self._sent.unsaid(key)
                raise
            message = str(answer.get("ts", ""))
        await self._sent.said(key, message)
        return message

    async def edit(self, place: Place, message: str, card: Card) -> None:
        await self._say(self._voice(place), "chat.update", card, channel=place.channel, ts=message)

    async def whisper(self, place: Place, person: str, what: Card | str, answer_to: str, key: str) -> None:
        """By the address that came with the question, else in the channel, else between the two of them."""
        voice = self._voice(place)
        note = await self._sent.begin(key)
        if note.message:
            return
        user = person.rpartition("/")[2]
        here = {"channel": place.channel, "user": user} | ({"thread_ts": place.thread} if place.thread else {})
        try:
            if not (answer_to and await self._answered(voice, answer_to, what)):
                try:
                    await self._say(voice, "chat.postEphemeral", what, **here)
                except SlackRefused as refusal:
                    log.info("whispered elsewhere", place=str(place), why=refusal.sentence)
                    await self._say(voice, "chat.postMessage", what, channel=user)
        except (SlackRefused, NeverCame):
            await self._sent.unsaid(key)
            raise
        await self._sent.said(key, "whispered")

    async def working(self, place: Place, message: str, on: bool) -> None:
        method = "reactions.add" if on else "reactions.remove"
        try:
            await self._voice(place).web.call(method, channel=place.channel, timestamp=message, name=WORKING)
        except MossError as problem:
            log.debug("no sign", place=str(place), why=problem.sentence)
        except Exception:
            log.exception("no sign", place=str(place))

    async def history(self, place: Place, limit: int) -> list[Message]:
        voice = self._voice(place)
        self._budget(voice)
        said = await self._messages(voice, place, min(limit, HISTORY_LIMIT))
        return [message for one in said if (message := _message(one, voice.workspace))]

    async def link(self, place: Place, message: str) -> str:
        voice = self._voices.get(place.workspace)
        if voice is None or not voice.workspace.url:
            return ""
        thread = f"?thread_ts={place.thread}&cid={place.channel}" if place.thread else ""
        return f"{voice.workspace.url}archives/{place.channel}/p{message.replace('.', '')}{thread}"

    async def groups_of(self, person: str, among: Collection[str]) -> frozenset[str]:
        team, _, user = person.removeprefix(f"{PLATFORM}:").partition("/")
        voice, problem = self._voices.get(team), None
        for name in sorted(among):
            where, _, group = name.removeprefix(f"{PLATFORM}:").partition("/")
            if voice is None or where != team or not GROUP.fullmatch(group):
                continue
            try:
                if user in await self._in_group(voice, group):
                    return frozenset({name})
            except MossError as why:
                problem = why
        if problem is not None:
            raise problem
        return frozenset()

    async def _in_group(self, voice: Voice, group: str) -> frozenset[str]:
        now = time.monotonic()
        asked, users = voice.groups.get(group, (now - GROUP_S, frozenset[str]()))
        if now - asked >= GROUP_S:
            answer = await voice.web.call("usergroups.users.list", usergroup=group)
            users = frozenset(map(str, answer.get("users") or ()))
            voice.groups[group] = now, users
        return users

    async def reactions(self, place: Place, message: str) -> Standing | None:
        """Who reacted to a message with what; None when it is gone, or Moss may not look."""
        voice = self._voice(place)
        try:
            answer = await voice.web.call("reactions.get", channel=place.channel, timestamp=message, full=True)
        except SlackRefused as refusal:
            log.info("reactions cannot be compared", place=str(place), why=refusal.sentence)
            return None
        said = answer.get("message") or {}
        found = [one | {"users": one.get("users") or []} for one in said.get("reactions") or []]
        seen = [
            Seen(voice.workspace.person(str(user)), str(one.get("name", ""))) for one in found for user in one["users"]
        ]
        ours = voice.workspace.person(voice.workspace.bot_user)
        whole = all(len(one["users"]) >= one.get("count", 0) for one in found)  # Slack counts more than it names
        return Standing([one for one in seen if one.person != ours], whole)

    def _voice(self, place: Place) -> Voice:
        voice = self._voices.get(place.workspace)
        if voice is None and self.expects_more:
            raise NeverCame(f"Slack was not reached yet, so nothing can be said in {place}; it is tried again.")
        if voice is None:
            raise Refused(f"Moss is in no workspace {place.workspace} of Slack; add it to [[slack]] of moss.toml.")
        return voice

    async def _say(self, voice: Voice, method: str, what: Card | str, **to: Any) -> dict[str, Any]:
        """With the card's picture when Slack takes it, and without it rather than not at all."""
        file = await self._uploaded(voice, what.picture) if isinstance(what, Card) and what.picture else ""
        for n in range(PICTURE_TRIES):
            try:
                return await voice.web.call(method, **to, **_content(what, file))
            except SlackRefused as refusal:
                if not file or refusal.error not in NOT_READY:
                    raise
                if n == PICTURE_TRIES - 1:
                    log.warning("a picture is left out", why=refusal.sentence)
                await asyncio.sleep(PICTURE_PAUSE_S)
        return await voice.web.call(method, **to, **_content(what, ""))

    async def _uploaded(self, voice: Voice, picture: Picture) -> str:
        digest = hashlib.sha256(picture.png).hexdigest()
        if digest not in voice.pictures:
            try:
                name = f"moss-{digest[:12]}.png"
                answer = await voice.web.call("files.upload_v2", content=picture.png, filename=name, title=name)
                voice.pictures[digest] = str(answer["files"][0]["id"])
            except (MossError, LookupError, TypeError) as problem:
                log.warning("a picture is left out", why=str(problem))
                return ""
            while len(voice.pictures) > PICTURES:
                voice.pictures.popitem(last=False)
        return voice.pictures[digest]

    async def _answered(self, voice: Voice, url: str, what: Card | str) -> bool:
        private = {"response_type": "ephemeral", "replace_original": False}
        try:
            await voice.web.answer(url, private | _content(what, ""))
        except (SlackRefused, Unavailable) as problem:
            log.info("answered elsewhere", why=problem.sentence)
            return False
        return True

    async def _find(self, voice: Voice, place: Place, key: str, since: datetime) -> str:
        """The message of an earlier try, if it got through."""
        oldest = f"{since.timestamp() - CLOCKS_APART_S:.6f}"
        for one in await self._messages(voice, place, LOOKED_THROUGH, oldest=oldest):
            payload = _mark(one)
            if payload.get("key") == _name(key) and one.get("ts"):
                return str(one["ts"])
        return ""

    async def _messages(self, voice: Voice, place: Place, limit: int, oldest: str = "0") -> list[dict[str, Any]]:
        """The last ones, oldest first. Of a thread Slack gives the first ones first."""
        more = {"channel": place.channel, "oldest": oldest, "include_all_metadata": True}
        if not place.thread:
            return _listed(await voice.web.call("conversations.history", limit=limit, **more))[::-1]
        answer = await voice.web.call("conversations.replies", ts=place.thread, limit=LONGEST_THREAD, **more)
        return _listed(answer)[-limit:]

    def _budget(self, voice: Voice) -> None:
        now = time.monotonic()
        while voice.asked and now - voice.asked[0] > 60:
            voice.asked.popleft()
        if len(voice.asked) >= voice.history_per_minute:
            raise Refused("Moss has read enough history of Slack for this minute; it goes by what it saw itself.")
        voice.asked.append(now)


def _content(what: Card | str, file: str) -> dict[str, Any]:
    still = {"unfurl_links": False, "unfurl_media": False}
    if isinstance(what, Card):
        return {"text": summary(what), "blocks": blocks(what, file), **still}
    return {"text": escaped(shortened(what, TEXT_CHARS, "")), "mrkdwn": False, **still}


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _listed(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in answer.get("messages") or [] if isinstance(one, dict)]


def _mark(message: dict[str, Any]) -> dict[str, Any]:
    metadata = message.get("metadata") or {}
    payload = metadata.get("event_payload") if metadata.get("event_type") == MARK else None
    return payload if isinstance(payload, dict) else {}


def _message(one: dict[str, Any], workspace: Workspace) -> Message | None:
    """What people and the agent said; what Moss says for itself is no part of their conversation."""
    try:
        found = MessageEvent.model_validate({"channel": "C", **one})
    except ValueError:
        return None
    speakers = {found.user, found.bot_id, found.app_id} - {None}
    by_moss = bool(speakers & {workspace.bot_user, workspace.bot})
    by_agent = bool(_mark(one).get("agent")) if by_moss else workspace.agent in speakers
    if (by_moss and not by_agent) or (not by_agent and (found.bot_id or found.user is None)):
        return None
    text, at = plain(found.text, without=workspace.bot_user), moment_of(found.ts)
    if by_agent:
        return Message(role="assistant", content=text, id=found.ts, at=at)
    return Message(role="user", content=text, id=found.ts, who=workspace.person(found.user or ""), at=at)
