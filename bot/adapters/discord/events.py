"""What Discord tells, as events of `bot/chat.py`. Pure: where it happened is found elsewhere."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import discord

from bot.adapters.discord.embeds import action_of
from bot.adapters.discord.places import person_of
from bot.chat import Commanded, Flagged, Pressed, Reacted, Replied, Said
from bot.places import is_direct
from core.model.transcript import Place

FLAG_FORM = "flag"
"""The verb in the id of the form that complains about a message."""
SPOKEN = frozenset({discord.MessageType.default, discord.MessageType.reply})
"""Other messages are Discord's own: somebody joined, a thread was begun."""


def message(place: Place, one: discord.Message, me: int, agent: int | None) -> Said | Replied | None:
    """What a person said, or the agent under its own name; None for everything else."""
    common: dict[str, Any] = {"id": f"said:{one.id}", "place": place, "at": one.created_at, "message": str(one.id)}
    if one.type not in SPOKEN or one.author.id == me:
        return None
    if one.author.id == agent:
        return Replied(**common, person=person_of(one.author.id), text=words(one))
    if one.author.bot or one.webhook_id is not None:
        return None
    addressed = is_direct(place) or calls(one, me)
    return Said(**common, person=person_of(one.author.id), text=words(one, without=me), addressed=addressed)


def edited(place: Place, one: discord.Message, agent: int) -> Replied | None:
    """The agent gave its message other words; None when Discord only added a preview."""
    found = message(place, one, 0, agent)
    if not isinstance(found, Replied) or one.edited_at is None:
        return None
    id = f"edited:{one.id}:{one.edited_at.isoformat()}"
    return found.model_copy(update={"id": id, "at": one.edited_at, "edited": True})


def calls(one: discord.Message, me: int) -> bool:
    """Its words name Moss, or the role that Discord made for it, which people often choose instead. An answer to a
    message of Moss's pings Moss as well, and is meant for others who read there."""
    managed = [role.id for role in one.role_mentions if role.tags is not None and role.tags.bot_id == me]
    return any(re.search(rf"<@[!&]?{id}>", one.content) for id in (me, *managed))


def words(one: discord.Message, without: int | None = None) -> str:
    """As people read it: names instead of ids, and not the name of Moss itself."""
    names = {user.id: user.display_name for user in one.mentions}

    def name(found: re.Match[str]) -> str:
        id = int(found[1])
        return "" if id == without else f"@{names[id]}" if id in names else found[0]

    text = re.sub(r"<@!?([0-9]{1,20})>", name, one.content)
    for role in one.role_mentions:
        own = role.tags is not None and role.tags.bot_id == without
        text = text.replace(role.mention, "" if own else f"@{role.name}")
    return text.strip()


def reaction(place: Place, one: discord.RawReactionActionEvent, me: int, at: datetime) -> Reacted | None:
    """Discord gives reactions no id: `reactions.once` makes one."""
    if one.user_id == me or (one.member is not None and one.member.bot) or not one.emoji.name:
        return None
    return Reacted(
        id="",
        place=place,
        person=person_of(one.user_id),
        at=at,
        message=str(one.message_id),
        emoji=one.emoji.name,
        added=one.event_type == "REACTION_ADD",
    )


def command(place: Place, one: discord.Interaction[Any], options: Iterable[object | None]) -> Commanded:
    """`/moss evolve batch-7k3f9q2m deep`: what was chosen in the menus, as if it had been typed."""
    words = " ".join(str(option) for option in options if option is not None)
    return Commanded(**_asked(place, one), words=words)


def press(place: Place, one: discord.Interaction[Any]) -> Pressed | Flagged | None:
    """A button, or a form that was filled in; None for what is not ours."""
    data: Mapping[str, Any] = one.data or {}
    action = action_of(custom_id(one))
    if action is None:
        return None
    common = _asked(place, one)
    reason = answers(data.get("components", [])).get("reason", "").strip()
    if one.type is discord.InteractionType.modal_submit and action.verb == FLAG_FORM:
        return Flagged(**common, message=action.subject, reason=reason)
    message = str(one.message.id) if one.message else ""
    return Pressed(**common, message=message, verb=action.verb, subject=action.subject, reason=reason)


def custom_id(one: discord.Interaction[Any]) -> str:
    data: Mapping[str, Any] = one.data or {}
    return str(data.get("custom_id", ""))


def answers(components: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The fields of a form by their ids, however they are wrapped."""
    found: dict[str, str] = {}
    for one in components:
        if isinstance(one.get("value"), str):
            found[str(one.get("custom_id"))] = one["value"]
        found |= answers(one.get("components", []))
        if isinstance(one.get("component"), Mapping):
            found |= answers([one["component"]])
    return found


def _asked(place: Place, one: discord.Interaction[Any]) -> dict[str, Any]:
    return {
        "id": f"asked:{one.id}",
        "place": place,
        "person": person_of(one.user.id),
        "at": one.created_at,
        "answer_to": f"{one.id}:{one.token}",
    }
