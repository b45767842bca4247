"""From what Slack sends to what Moss hears. Pure: a payload in, an event out, or None when it is none of ours."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from bot.adapters.slack.forms import FLAG_FORM, PRESS_FORM, flag_of, reason_of, subject_of
from bot.adapters.slack.payloads import (
    Actions,
    CommandPayload,
    EditEvent,
    MessageEvent,
    Payload,
    ReactionEvent,
    Shortcut,
    Subject,
    Submission,
)
from bot.chat import Commanded, Flagged, Pressed, Reacted, Replied, Said
from bot.places import is_direct
from core.model.transcript import Place

PLATFORM = "slack"
ASK, PRESS = "ask", "press"
"""How the ids of buttons begin: with a form for the reason, and without."""
SLACKBOT = "USLACKBOT"
SAID = frozenset({None, "file_share", "thread_broadcast", "me_message", "bot_message"})
"""Messages with another subtype tell of changes, and of who came and went."""

P = TypeVar("P", bound=Payload)


@dataclass(frozen=True, slots=True)
class Workspace:
    team: str
    bot_user: str
    """Moss itself, as people mention it."""
    bot: str = ""
    """Moss itself, as its messages are marked."""
    agent: str = ""
    """Who the agent is where it speaks under its own name: a user, a bot or an app."""
    url: str = ""

    def place(self, channel: str, thread: str = "") -> Place:
        return Place(platform=PLATFORM, workspace=self.team, channel=channel, thread=thread)

    def person(self, user: str) -> str:
        return f"{PLATFORM}:{self.team}/{user}"


def workspace_of(body: Mapping[str, Any], known: Mapping[str, Workspace]) -> Workspace | None:
    """For which installation this is: two workspaces may share one app, and each hears what is meant for the other."""
    return next((known[team] for team in _teams(body) if team in known), None)


def _teams(body: Mapping[str, Any]) -> Iterable[str]:
    authorizations = body.get("authorizations")
    if isinstance(authorizations, list):
        yield from (str(one["team_id"]) for one in authorizations if isinstance(one, dict) and one.get("team_id"))
    for holder, key in (("view", "app_installed_team_id"), ("team", "id"), ("user", "team_id")):
        inner = body.get(holder)
        if isinstance(inner, dict) and inner.get(key):
            yield str(inner[key])
    if body.get("team_id"):
        yield str(body["team_id"])


def happened(body: Mapping[str, Any], workspace: Workspace) -> Said | Replied | Reacted | None:
    """From the Events API."""
    event = body.get("event")
    if not isinstance(event, dict):
        return None
    kind = event.get("type")
    if kind in ("reaction_added", "reaction_removed"):
        return _reacted(body, event, workspace)
    if kind == "message" and event.get("subtype") == "message_changed":
        return _edited(event, workspace)
    if kind in ("message", "app_mention"):
        return _said(event, workspace)
    return None


def _reacted(body: Mapping[str, Any], event: Any, workspace: Workspace) -> Reacted | None:
    seconds = body.get("event_time")
    told = {"event_ts": f"{seconds}.0"} if isinstance(seconds, int) and not event.get("event_ts") else {}
    found = read(ReactionEvent, event | told)
    if found is None or found.item.type != "message" or found.user in (workspace.bot_user, workspace.agent):
        return None
    return Reacted(
        id=str(body.get("event_id") or f"{found.type}:{found.event_ts}:{found.user}")[:200],
        place=workspace.place(found.item.channel),
        person=workspace.person(found.user),
        at=moment_of(found.event_ts),
        message=found.item.ts,
        emoji=found.reaction,
        added=found.type == "reaction_added",
    )


def _said(event: Any, workspace: Workspace) -> Said | Replied | None:
    """A mention comes twice, as a message and as a mention, and with two ids: so the message's own id counts."""
    found = read(MessageEvent, event)
    if found is None or found.subtype not in SAID:
        return None
    speakers = {found.user, found.bot_id, found.app_id} - {None}
    if speakers & {workspace.bot_user, workspace.bot}:
        return None
    thread = "" if found.thread_ts in (None, found.ts) else str(found.thread_ts)
    id, place, at = f"message:{found.channel}:{found.ts}", workspace.place(found.channel, thread), moment_of(found.ts)
    if workspace.agent and workspace.agent in speakers:
        text = plain(found.text)
        return Replied(id=id, place=place, person=workspace.person(workspace.agent), at=at, message=found.ts, text=text)
    if found.bot_id or found.user in (None, SLACKBOT):
        return None  # another bot; two that answer each other never end
    return Said(
        id=id,
        place=place,
        person=workspace.person(str(found.user)),
        at=at,
        message=found.ts,
        text=plain(found.text, without=workspace.bot_user),
        addressed=found.channel_type == "im"
        or is_direct(place)
        or bool(re.search(rf"<@{workspace.bot_user}[|>]", found.text)),
    )


def _edited(event: Any, workspace: Workspace) -> Replied | None:
    """Only the agent's own: what people change in theirs was answered already. A preview that Slack adds to a message
    is no change of its words."""
    found = read(EditEvent, event)
    inner = _said({"channel": found.channel, **found.message}, workspace) if found else None
    if found is None or not isinstance(inner, Replied):
        return None
    if found.message.get("text") == found.previous_message.get("text"):
        return None
    id = f"edited:{found.channel}:{inner.message}:{found.ts}"
    return inner.model_copy(update={"id": id, "at": moment_of(found.ts), "edited": True})


def commanded(body: Mapping[str, Any], workspace: Workspace, now: datetime) -> Commanded | None:
    found = read(CommandPayload, body)
    if found is None:
        return None
    return Commanded(
        id=f"command:{found.trigger_id}",
        place=workspace.place(found.channel_id),
        person=workspace.person(found.user_id),
        at=now,
        words=plain(found.text),
        answer_to=found.response_url,
    )


def asked_for_flag(body: Mapping[str, Any]) -> tuple[str, Subject] | None:
    """The menu of a message: what opens the form, and what the form is about."""
    found = read(Shortcut, body)
    if found is None:
        return None
    thread = found.message.thread_ts if found.message.thread_ts != found.message.ts else None
    subject = Subject(
        channel=found.channel.id, message=found.message.ts, thread=thread or "", answer_to=found.response_url
    )
    return found.trigger_id, subject


def asked_for_reason(body: Mapping[str, Any]) -> tuple[str, Subject] | None:
    """A button that wants a few words before it counts."""
    found = read(Actions, body)
    where = found.where if found else None
    if found is None or where is None or not found.actions[0].action_id.startswith(ASK):
        return None
    subject = Subject(
        channel=where.channel_id,
        message=where.message_ts,
        thread=where.thread_ts or "",
        value=found.actions[0].value,
        answer_to=found.response_url,
    )
    return found.trigger_id, subject


def pressed(body: Mapping[str, Any], workspace: Workspace, now: datetime) -> Pressed | None:
    found = read(Actions, body)
    where = found.where if found else None
    if found is None or where is None or not found.actions[0].action_id.startswith(PRESS):
        return None
    verb, _, subject = found.actions[0].value.partition(" ")
    return Pressed(
        id=f"pressed:{found.trigger_id}",
        place=workspace.place(where.channel_id, where.thread_ts or ""),
        person=workspace.person(found.user.id),
        at=now,
        message=where.message_ts,
        verb=verb,
        subject=subject,
        answer_to=found.response_url,
    )


def submitted(body: Mapping[str, Any], workspace: Workspace, now: datetime) -> Flagged | Pressed | None:
    """A form that was sent; it is sent once, so its own id tells its deliveries apart."""
    found = read(Submission, body)
    about = subject_of(found.view) if found else None
    if found is None or about is None:
        return None
    place, person = workspace.place(about.channel, about.thread), workspace.person(found.user.id)
    id, reason = f"form:{found.view.id}", reason_of(found.view)
    match found.view.callback_id:
        case c if c == FLAG_FORM:
            return Flagged(
                id=id,
                place=place,
                person=person,
                at=now,
                message=about.message,
                failure=flag_of(found.view),
                reason=reason,
                answer_to=about.answer_to,
            )
        case c if c == PRESS_FORM:
            verb, _, subject = about.value.partition(" ")
            return Pressed(
                id=id,
                place=place,
                person=person,
                at=now,
                message=about.message,
                verb=verb,
                subject=subject,
                reason=reason,
                answer_to=about.answer_to,
            )
    return None


def read(model: type[P], body: object) -> P | None:
    try:
        return model.model_validate(body)
    except ValidationError:
        return None


def moment_of(stamp: str) -> datetime:
    return datetime.fromtimestamp(float(stamp), UTC)


_LINK = re.compile(r"<([^<>|]*)(?:\|([^<>]*))?>")
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


def plain(text: str, without: str = "") -> str:
    """The words as people see them; `without` is a user whose mention says only who is meant."""

    def shown(found: re.Match[str]) -> str:
        target, label = found[1], found[2] or ""
        match target[:1]:
            case "@":
                return "" if without and target == f"@{without}" else f"@{label or target[1:]}"
            case "#":
                return f"#{label or target[1:]}"
            case "!":
                return label or "@" + target[1:].partition("^")[0]
        bare = target.removeprefix("mailto:")
        return bare if not label or label in bare else f"{label} ({bare})"

    words = _LINK.sub(shown, text)
    for entity, character in _ENTITIES:
        words = words.replace(entity, character)
    return words.strip()
