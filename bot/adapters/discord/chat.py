"""Discord as one of Moss's chats: what Moss and the agent say becomes messages of its bot user."""

import asyncio
import contextlib
import re
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import discord

from bot.adapters.discord.channels import Channels
from bot.adapters.discord.embeds import NOBODY, Rendered, named, parts, render
from bot.adapters.discord.errors import ARCHIVED, NO_DIRECT_MESSAGES, THREAD_EXISTS, Gone, translated
from bot.adapters.discord.places import (
    DIRECT,
    PLATFORM,
    Kind,
    channel_of,
    number,
    person_of,
    place_of,
    user_of,
)
from bot.adapters.sent import Note, Sent
from bot.chat import Card
from bot.places import is_direct
from bot.replies import REPLY
from core.clock import Clock, system_clock
from core.model.errors import MossError, Unavailable
from core.model.transcript import Message, Place
from core.model.value import sha256
from core.store import posts
from core.store.store import Store

TOKEN_LIVES = timedelta(minutes=14)
"""Of an interaction; Discord says fifteen minutes."""
ANSWERED = "answered"
"""Stands for the message of an answer to a command: it has no id that lasts."""
DEFER_S = 4.0
"""Until an answer may be given, its interaction has to be deferred."""
LOOKED_AT = 50
SKEW = timedelta(minutes=1)
"""Discord's clock may go otherwise than ours."""
TYPING_S, TYPING_LASTS_S = 8.0, 1800.0
"""Discord shows the sign for ten seconds; no answer takes longer than half an hour."""
CLOSED_DOOR_S = 3600.0
"""How often a person hears that they take no direct messages."""
REMEMBERED = 2000
_ROLE = re.compile(rf"{PLATFORM}:([0-9]{{1,20}})/[0-9]{{1,20}}")
NAME_LIMIT = 80


@dataclass(slots=True)
class Recent:
    """The last few keys, so that memory stays as it is."""

    _keys: OrderedDict[Any, float] = field(default_factory=OrderedDict)

    def add(self, key: object) -> None:
        self._keys[key] = time.monotonic()
        while len(self._keys) > REMEMBERED:
            self._keys.popitem(last=False)

    def has(self, key: object, within_s: float = float("inf")) -> bool:
        return key in self._keys and time.monotonic() - self._keys[key] < within_s


class DiscordChat:
    platform = PLATFORM

    def __init__(self, store: Store, agent_user: int | None = None, clock: Clock = system_clock) -> None:
        self._store = store
        self._agent_user = agent_user
        self._clock = clock
        self._sent = Sent(store, PLATFORM)
        self.channels = Channels()
        self._threads = Recent()
        """Those that are known to be there."""
        self._told = Recent()
        """People who heard that they take no direct messages."""
        self._deferring: dict[int, asyncio.Event] = {}
        self._typing: dict[str, asyncio.Task[None]] = {}
        self.client: discord.Client | None = None
        """Logged in, or None."""

    # What the client tells

    def deferring(self, interaction: int) -> asyncio.Event:
        """Set once the interaction is deferred: before, Discord takes no answer to it."""
        event = self._deferring.setdefault(interaction, asyncio.Event())
        while len(self._deferring) > REMEMBERED:
            self._deferring.pop(next(iter(self._deferring)))
        return event

    # Saying

    def parts(self, text: str) -> list[str]:
        return parts(text)

    async def post(self, place: Place, what: Card | str, key: str, *, as_agent: str = "") -> str:
        rendered, note = render(what), await self._sent.begin(key)
        if note.message:
            return note.message
        with translated("a message"):
            kind = await self._kind(place)
            if kind is Kind.posts and not place.thread:
                return await self._begin_post(place, rendered, key, note)
            channel = self._messages(place, await self._target(place, rendered, kind))
            return await self._send(channel, rendered, key, place, note, _answered(place, kind))

    async def edit(self, place: Place, message: str, card: Card) -> None:
        rendered = render(card)
        with translated("an edit"):
            shown = (await self._channel(place, message)).get_partial_message(number(message))
            try:
                await self._edit(shown, rendered)
            except discord.HTTPException as problem:
                if problem.code != ARCHIVED:
                    raise
                await self._here().http.edit_channel(shown.channel.id, archived=False)
                await self._edit(shown, rendered)

    async def _edit(self, shown: discord.PartialMessage, rendered: Rendered) -> None:
        await shown.edit(
            content=rendered.text,
            embed=rendered.embed,
            view=rendered.view(),
            attachments=rendered.files(),
            allowed_mentions=NOBODY,
        )

    async def whisper(self, place: Place, person: str, what: Card | str, answer_to: str, key: str) -> None:
        """As the answer to a command or a press while Discord takes one, and as a direct message otherwise."""
        rendered, note = render(what), await self._sent.begin(key)
        if note.message:
            return
        if answer_to and await self._given_back(answer_to, rendered):
            await self._sent.said(key, ANSWERED)
            return
        with translated("a direct message"):
            try:
                direct = await self._here().create_dm(discord.Object(user_of(person)))
                await self._send(direct, rendered, key, place_of(None, direct.id, None), note)
            except discord.Forbidden as problem:
                if problem.code != NO_DIRECT_MESSAGES or is_direct(place) or self._told.has(person, CLOSED_DOOR_S):
                    raise
                self._told.add(person)
                sentence = (
                    f"<@{user_of(person)}>, Moss has an answer for you alone and may not send you direct messages; "
                    "allow those of this server's members, and ask again."
                )
                await self._send(await self._channel(place), Rendered(sentence), key, place, note)

    async def _given_back(self, answer_to: str, rendered: Rendered) -> bool:
        """An answer takes the place of `is thinking`, so that giving it again changes nothing."""
        id, _, token = answer_to.partition(":")
        if not token or self._clock() - discord.utils.snowflake_time(number(id)) > TOKEN_LIVES:
            return False
        client = self._here()
        buttons: dict[str, Any] = {"view": view} if (view := rendered.view()) else {}
        if (deferred := self._deferring.get(number(id))) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DEFER_S):
                    await deferred.wait()
        try:
            with translated("an answer"):
                webhook = discord.Webhook.partial(client.application_id or 0, token, client=client)
                await webhook.edit_message(
                    cast(int, "@original"),  # the name of the first answer in Discord's interface
                    content=rendered.text,
                    embeds=[rendered.embed] if rendered.embed else [],
                    attachments=rendered.files(),
                    allowed_mentions=NOBODY,
                    **buttons,
                )
        except Gone:
            return False
        return True

    async def _send(  # noqa: PLR0917 - what is said where, and how it is known again
        self,
        channel: discord.abc.Messageable,
        rendered: Rendered,
        key: str,
        place: Place,
        note: Note,
        answered: discord.MessageReference | None = None,
    ) -> str:
        """Once: Discord knows a repeated nonce for a few minutes, and what is older is looked for."""
        if note.since and (found := await self._lost(channel, rendered, place, note.since)):
            await self._sent.said(key, found)
            return found
        more: dict[str, Any] = {"reference": answered} if answered else {}
        try:
            sent = await channel.send(
                nonce=sha256(key.encode()).removeprefix("sha256:")[:25],  # more is not allowed
                **rendered.content(),
                **more,
            )
        except discord.HTTPException as problem:
            if problem.status < 500:
                await self._sent.unsaid(key)
            raise
        await self._sent.said(key, str(sent.id))
        return str(sent.id)

    async def _lost(
        self, channel: discord.abc.Messageable, rendered: Rendered, place: Place, since: datetime
    ) -> str | None:
        """A message of ours that shows the same, and of which no record knows: whoever sent it did not live to write it
        down, or did not hear that it arrived."""
        try:
            async for one in channel.history(limit=LOOKED_AT):
                if await self._is_lost(one, rendered, place, since):
                    return str(one.id)
        except (discord.Forbidden, discord.NotFound):
            pass  # it may write here and not read; the nonce is left
        return None

    async def _is_lost(self, one: discord.Message, rendered: Rendered, place: Place, since: datetime) -> bool:
        body = (one.embeds[0].description or "") if one.embeds else ""
        same = one.author.id == self._me() and (one.content, body) == (rendered.text, rendered.body)
        if not same or one.created_at < since - SKEW:
            return False
        async with self._store.reading() as db:
            return await posts.of_message(db, place, str(one.id)) is None

    async def _begin_post(self, place: Place, rendered: Rendered, key: str, note: Note) -> str:
        """In a forum whatever belongs to no post begins one."""
        client, id = self._here(), number(place.channel)
        forum = client.get_channel(id) or await client.fetch_channel(id)
        assert isinstance(forum, discord.ForumChannel)
        if note.since and (found := await self._lost_post(forum, rendered, place, note.since)):
            await self._sent.said(key, found)
            return found
        try:
            made = await forum.create_thread(name=_name(rendered), **rendered.content())
        except discord.HTTPException as problem:
            if problem.status < 500:
                await self._sent.unsaid(key)
            raise
        self._threads.add(made.thread.id)
        await self._sent.said(key, str(made.message.id))
        return str(made.message.id)

    async def _lost_post(
        self, forum: discord.ForumChannel, rendered: Rendered, place: Place, since: datetime
    ) -> str | None:
        """As `_lost`: a forum knows no nonce, so that looking is all there is."""
        for post in await forum.guild.active_threads():
            if post.parent_id == forum.id and post.owner_id == self._me():
                with contextlib.suppress(discord.NotFound):
                    if await self._is_lost(await post.fetch_message(post.id), rendered, place, since):
                        return str(post.id)
        return None

    # Where

    async def _kind(self, place: Place) -> Kind:
        if is_direct(place) or place.thread == place.channel:
            return Kind.flat
        return (await self.channels.about(self._here(), number(place.channel))).kind

    async def _channel(self, place: Place, message: str = "") -> discord.PartialMessageable:
        """Where a place's messages are, or this one."""
        return self._messages(place, channel_of(place, message, await self._kind(place)))

    async def _target(self, place: Place, rendered: Rendered, kind: Kind) -> int:
        """The channel or the thread; a thread that nobody has begun is begun."""
        target = channel_of(place, kind=kind)
        client = self._here()
        begins = kind is Kind.threads and place.thread
        if not begins or self._threads.has(target) or client.get_channel(target):
            return target
        root = self._messages(place, number(place.channel)).get_partial_message(target)
        try:
            await root.create_thread(name=_name(rendered))
        except discord.NotFound:
            pass  # no such message: this thread began in another way, or is gone, as sending will tell
        except discord.HTTPException as problem:
            if problem.code != THREAD_EXISTS:
                raise
        self._threads.add(target)
        return target

    def _messages(self, place: Place, channel: int) -> discord.PartialMessageable:
        guild = None if is_direct(place) else number(place.workspace)
        return self._here().get_partial_messageable(channel, guild_id=guild)

    def _here(self) -> discord.Client:
        if self.client is None or self.client.is_closed():
            raise Unavailable("Moss is not logged in at Discord at this moment; it is tried again.")
        return self.client

    def _me(self) -> int:
        return user.id if (user := self._here().user) else 0

    # Signs, looking and links

    async def working(self, place: Place, message: str, on: bool) -> None:
        if (typing := self._typing.pop(message, None)) is not None:
            typing.cancel()
        if on:
            self._typing[message] = asyncio.create_task(self._type(place))

    async def _type(self, place: Place) -> None:
        with contextlib.suppress(MossError, discord.DiscordException, OSError, TimeoutError):
            async with asyncio.timeout(TYPING_LASTS_S):
                while True:
                    with translated("a sign"):
                        await (await self._channel(place)).typing()
                    await asyncio.sleep(TYPING_S)

    async def history(self, place: Place, limit: int) -> list[Message]:
        """What people and the agent said; what Moss says is no part of their conversation."""
        with translated("what was said"):
            kind = await self._kind(place)
            channel = self._messages(place, channel_of(place, kind=kind))
            found = [one async for one in channel.history(limit=limit)]
            if kind is Kind.threads and place.thread and len(found) < limit:
                with contextlib.suppress(discord.NotFound):  # a thread may begin without a message
                    outside = self._messages(place, number(place.channel))
                    found.append(await outside.fetch_message(number(place.thread)))
        said = [await self._said(place, one) for one in reversed(found)]
        return [message for message in said if message is not None]

    async def _said(self, place: Place, one: discord.Message) -> Message | None:
        at: datetime = one.created_at
        if one.author.id == self._agent_user or await self._by_agent(place, one):
            return Message(role="assistant", content=one.content, id=str(one.id), at=at)
        if one.author.bot or not one.content:
            return None
        return Message(role="user", content=one.content, id=str(one.id), who=person_of(one.author.id), at=at)

    async def _by_agent(self, place: Place, one: discord.Message) -> bool:
        """Through Moss."""
        if one.author.id != self._me():
            return False
        async with self._store.reading() as db:
            post = await posts.of_message(db, place, str(one.id))
        return post is not None and post.key.startswith(REPLY)

    async def link(self, place: Place, message: str) -> str:
        where = DIRECT if is_direct(place) else place.workspace
        channel = channel_of(place, message, await self._kind(place))
        return f"https://discord.com/channels/{where}/{channel}/{message}"

    async def groups_of(self, person: str, among: Collection[str]) -> frozenset[str]:
        """Roles, as `discord:SERVER/ROLE`."""
        found: set[str] = set()
        for server, names in _by_server(among).items():
            try:
                with translated("the roles of a member"):
                    member = await self._here().http.get_member(server, user_of(person))
            except Gone:  # nobody of that name is there
                continue
            found |= names & {f"{PLATFORM}:{server}/{role}" for role in member["roles"]}
        return frozenset(found)

    async def prune(self) -> None:
        """What was said so long ago that nothing says it again."""
        await self._sent.prune()

    async def close(self) -> None:
        signs = list(self._typing.values())
        self._typing.clear()
        for sign in signs:
            sign.cancel()
        await asyncio.gather(*signs, return_exceptions=True)


def _name(rendered: Rendered) -> str:
    """Of a thread."""
    return named(rendered.text)[:NAME_LIMIT].strip() or "Moss"


def _answered(place: Place, kind: Kind) -> discord.MessageReference | None:
    """Where no thread can begin at a message, what belongs below it is an answer to it."""
    if kind is not Kind.flat or is_direct(place) or place.thread in ("", place.channel):
        return None
    return discord.MessageReference(
        message_id=number(place.thread),
        channel_id=number(place.channel),
        guild_id=number(place.workspace),
        fail_if_not_exists=False,
    )


def _by_server(names: Collection[str]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for name in sorted(names):
        if match := _ROLE.fullmatch(name):
            found.setdefault(int(match[1]), set()).add(name)
    return found
