"""Posting each thing once and keeping it up to date, whoever of several processes does it, and whenever one dies.

Before a message goes out or is edited, its key is claimed in the store; afterwards the claim becomes the record of
where it stands and what it shows. A claim that its holder did not live to fulfil is taken over, with the same key, by
which the platform may tell that it has the message already; and a holder who lost it says nothing more about the key.
"""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from bot.chat import Card, Chat
from bot.patience import in_time
from core.model.errors import Refused, Unavailable
from core.model.transcript import Place
from core.model.value import sha256
from core.process_table import has_ended, identity
from core.store import Store, posts
from core.store.posts import Post

log = structlog.get_logger(__name__)

Chats = Mapping[str, Chat]
"""By platform."""

CLAIM_S = 60.0
"""Longer than a platform may take: after this a claim counts for nothing."""
AGAIN = ":again"
"""Ends the key of a message that replaces a deleted one."""

_CLAIM = "claimed by "
_NOBODY = "nobody knows"
"""What a message shows, or who is about to post or edit it."""


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
    claim = _claim()
    if found := await _claimed(store, key, place, claim):
        return found
    try:
        chat = _chat(chats, place)
        message = await in_time(chat, chat.post(place, what, key))
    except Refused:
        async with store.writing() as db:
            await posts.forget(db, key, held=claim)
        raise
    except Unavailable:
        async with store.writing() as db:
            await posts.edited(db, store.now(), key, _NOBODY, held=claim)
        raise
    posted = Post(key=key, place=place, message=message, shown=looks(what), at=store.now())
    async with store.writing() as db:
        if await posts.moved(db, posted.at, key, place, message=message, shown=posted.shown, held=claim):
            return posted
        found = await posts.of_key(db, key)
    if found is None or not found.message:
        raise Unavailable(f"Posting {key} took too long, and somebody else has taken it over; it is looked for again.")
    return found  # where the other one put it, which is the same message unless the platform takes things twice


def _claim() -> str:
    return f"{_CLAIM}{identity()}#{secrets.token_hex(4)}"


async def _claimed(store: Store, key: str, place: Place, claim: str) -> Post | None:
    """What stands there already, or None: then it is ours to post."""
    async with store.writing() as db:
        now = store.now()
        found = await posts.of_key(db, key)
        if found and found.message:
            return found
        if found is None:
            await posts.add(db, now, key, place, message="", shown=claim)
        elif not _held(found, now):
            await posts.moved(db, now, key, place, message="", shown=claim)
        else:
            raise Unavailable(f"Somebody else is about to post {key}; try again in a moment.")
    return None


def _held(post: Post, now: datetime) -> bool:
    """By somebody who may still fulfil a claim."""
    holder = post.shown.removeprefix(_CLAIM).partition("#")[0]
    fresh = timedelta() <= now - post.at < timedelta(seconds=CLAIM_S)
    return post.shown.startswith(_CLAIM) and fresh and not has_ended(holder)


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
    claim = _claim()
    await _claim_edit(store, post, claim)
    chat = _chat(chats, post.place)
    try:
        await in_time(chat, chat.edit(post.place, post.message, card))
    except (Refused, Unavailable) as problem:
        async with store.writing() as db:
            await posts.edited(db, store.now(), key, _NOBODY, held=claim)
        if isinstance(problem, Refused):
            return await _again(store, chats, post, card, problem)
        raise
    async with store.writing() as db:
        alone = await posts.edited(db, store.now(), key, looks(card), held=claim)
        if not alone:  # which also tells whoever took it over, should they be editing still
            await posts.edited(db, store.now(), key, _NOBODY)
    if not alone:
        raise Unavailable(f"Somebody else edited {key} too, and nobody knows which edit came last; edit it again.")
    return replace(post, shown=looks(card))


async def _claim_edit(store: Store, seen: Post, claim: str) -> None:
    async with store.writing() as db:
        now = store.now()
        found = await posts.of_key(db, seen.key)
        if found is None or (found.message, found.shown) != (seen.message, seen.shown) or _held(found, now):
            raise Unavailable(f"Somebody else is about to edit {seen.key}; try again in a moment.")
        await posts.edited(db, now, seen.key, claim)


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


def _chat(chats: Chats, place: Place) -> Chat:
    chat = chats.get(place.platform)
    if chat is None:
        raise Refused(f"Moss is in no chat named {place.platform}, so nothing can be posted to {place}.")
    return chat
