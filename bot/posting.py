"""Posting each thing once and keeping it up to date, whoever of several processes does it, and whenever one dies.

Before a message goes out, its key is claimed in the store; afterwards the claim becomes the record of where it stands.
A claim that its holder did not live to fulfil is taken over, with the same key, by which the platform may tell that it
has the message already.
"""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from bot.chat import Card, Chat
from core.model.errors import Refused, Unavailable
from core.model.transcript import Place
from core.model.value import sha256
from core.process_table import has_ended, identity
from core.store import Store, posts
from core.store.posts import Post

log = structlog.get_logger(__name__)

Chats = Mapping[str, Chat]
"""By platform."""

CALL_S = 30.0
"""What a platform may take for one message."""
CLAIM_S = 60.0
"""Longer than a platform may take: after this a claim counts for nothing."""
AGAIN = ":again"
"""Ends the key of a message that replaces a deleted one."""

_CLAIM = "claimed by "
_NOBODY = "nobody knows"
"""What a message shows, or who is about to post it."""


def looks(what: Card | str) -> str:
    """The digest of what a message shows."""
    if isinstance(what, str):
        return sha256(what.encode())
    bare = what.model_copy(update={"picture": None})
    picture = what.picture.png + what.picture.alt.encode() if what.picture else b""
    return sha256(bare.to_json().encode() + picture)


async def find(store: Store, key: str) -> Post | None:
    """Where the message with this key stands; None while nobody has posted it."""
    async with store.reading() as db:
        found = await posts.of_key(db, key)
    return found if found and found.message else None


async def link_to(store: Store, chats: Chats, key: str) -> str:
    """Where people find the message with this key; empty when there is no such place."""
    post = await find(store, key)
    chat = chats.get(post.place.platform) if post else None
    return await chat.link(post.place, post.message) if post and chat else ""


async def post_once(store: Store, chats: Chats, place: Place, what: Card | str, key: str) -> Post:
    """The message, posted now or before. Raises Unavailable, then nothing is lost and another try goes on; or Refused,
    then nothing was posted and nothing stands in the way of another place."""
    claim = f"{_CLAIM}{identity()}#{secrets.token_hex(4)}"
    if found := await _claimed(store, key, place, claim):
        return found
    try:
        message = await _call(chats, place).post(place, what, key)
    except Refused:
        async with store.writing() as db:
            await posts.forget(db, key)
        raise
    except Unavailable:
        async with store.writing() as db:
            await posts.edited(db, store.now(), key, _NOBODY)
        raise
    async with store.writing() as db:
        now = store.now()
        await posts.moved(db, now, key, place, message=message, shown=looks(what))
    return Post(key=key, place=place, message=message, shown=looks(what), at=now)


async def _claimed(store: Store, key: str, place: Place, claim: str) -> Post | None:
    """What stands there already, or None: then it is ours to post."""
    async with store.writing() as db:
        now = store.now()
        found = await posts.of_key(db, key)
        if found and found.message:
            return found
        if found is None:
            await posts.add(db, now, key, place, message="", shown=claim)
        elif _lapsed(found, now):
            await posts.moved(db, now, key, place, message="", shown=claim)
        else:
            raise Unavailable(f"Somebody else is about to post {key}; try again in a moment.")
    return None


def _lapsed(post: Post, now: datetime) -> bool:
    holder = post.shown.removeprefix(_CLAIM).partition("#")[0]
    in_time = timedelta() <= now - post.at < timedelta(seconds=CLAIM_S)
    return post.shown == _NOBODY or has_ended(holder) or not in_time


async def show(store: Store, chats: Chats, place: Place, card: Card, key: str) -> Post:
    """The card under this key, posted or brought up to date. One that was deleted is posted again, once. Raises as
    `post_once` does; after Unavailable the card has to be made anew, since it may be another's turn by then."""
    post = await post_once(store, chats, place, card, key)
    if post.place.platform not in chats:  # that platform was switched off; life goes on at the new place
        async with store.writing() as db:
            await posts.forget(db, key)
        post = await post_once(store, chats, place, card, key)
    if post.shown == looks(card):
        return post
    try:
        await _call(chats, post.place).edit(post.place, post.message, card)
    except Refused as gone:
        return await _again(store, chats, post, card, gone)
    async with store.writing() as db:
        found = await posts.of_key(db, key)
        alone = found is not None and found.shown == post.shown
        await posts.edited(db, store.now(), key, looks(card) if alone else _NOBODY)
    if not alone:
        raise Unavailable(f"Somebody else edited {key} too, and nobody knows which edit came last; edit it again.")
    return replace(post, shown=looks(card))


async def _again(store: Store, chats: Chats, old: Post, card: Card, gone: Refused) -> Post:
    fresh = await find(store, old.key + AGAIN)
    if fresh and fresh.message == old.message:
        raise gone
    if fresh is None:
        log.warning("card gone", key=old.key, why=gone.sentence)
        fresh = await post_once(store, chats, old.place, card, old.key + AGAIN)
    async with store.writing() as db:
        await posts.moved(db, store.now(), old.key, fresh.place, message=fresh.message, shown=fresh.shown)
    return await show(store, chats, fresh.place, card, old.key)


def _call(chats: Chats, place: Place) -> "_Limited":
    chat = chats.get(place.platform)
    if chat is None:
        raise Refused(f"Moss is in no chat named {place.platform}, so nothing can be posted to {place}.")
    return _Limited(chat)


class _Limited:
    """A chat that answers in time, or is away."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    async def post(self, place: Place, what: Card | str, key: str) -> str:
        try:
            async with asyncio.timeout(CALL_S):
                return await self._chat.post(place, what, key)
        except TimeoutError:
            raise Unavailable(f"{self._chat.platform} did not take a message within {CALL_S:.0f} s.") from None

    async def edit(self, place: Place, message: str, card: Card) -> None:
        try:
            async with asyncio.timeout(CALL_S):
                await self._chat.edit(place, message, card)
        except TimeoutError:
            raise Unavailable(f"{self._chat.platform} did not take an edit within {CALL_S:.0f} s.") from None
