"""slack-bolt, set up so that whatever happens is written down before Slack hears that it arrived."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_bolt.authorization import AuthorizeResult

from bot.adapters.slack import events
from bot.adapters.slack.chat import SlackChat
from bot.adapters.slack.events import Workspace
from bot.adapters.slack.forms import flag_form, reason_form
from bot.adapters.slack.payloads import Subject
from bot.adapters.slack.web import QUIET, Web
from bot.chat import AnyEvent
from bot.sections import Slack
from core.clock import Clock
from core.model.errors import MossError

log = structlog.get_logger(__name__)

FLAG_SHORTCUT = "moss_flag"
ANY = re.compile(".*", re.DOTALL)
NO_FORM = "Slack could not open the form in time; please try again, or use `/moss`."

Body = Mapping[str, Any]
Take = Callable[[AnyEvent], Awaitable[object]]
Installation = Callable[[Body], Workspace | None]
"""For which workspace a delivery is. Raises Unavailable as long as that cannot be known."""


def bolt(  # noqa: PLR0917 - one app: how it is reached, whom it speaks for, and what becomes of what it hears
    settings: Slack, web: Web, chat: SlackChat, installation: Installation, take: Take, now: Clock
) -> AsyncApp:
    """Every kind of delivery has a listener, since one without is never acknowledged and comes three more times. Slack
    is answered after the listener has ended (`process_before_response`): one that fails leaves the delivery open, and
    Slack brings it again. Deliveries that come again are told apart by the inbox, and not by their number: a second
    one may be the only one that arrives."""
    secret = settings.signing_secret
    app = AsyncApp(
        name="moss",
        logger=QUIET,
        client=web.client,
        signing_secret=secret.get_secret_value() if secret else "",
        authorize=_authorize(web),
        process_before_response=True,
        ignoring_self_events_enabled=False,  # Moss knows its own words by itself
        ssl_check_enabled=False,  # it would answer without a signature
        attaching_function_token_enabled=False,
    )
    listener = _Listener(web, chat, installation, take, now)
    app.event(ANY)(listener.happened)
    app.command(ANY)(listener.commanded)
    app.shortcut(ANY)(ack=listener.heard, lazy=[listener.open_flag_form])
    app.action(ANY)(ack=listener.pressed, lazy=[listener.open_reason_form])
    app.view(ANY)(listener.submitted)
    app.view_closed(ANY)(listener.heard)
    app.options(ANY)(listener.heard)
    app.error(_failed)
    return app


class _Listener:
    def __init__(self, web: Web, chat: SlackChat, installation: Installation, take: Take, now: Clock) -> None:
        self._web = web
        self._chat = chat
        self._installation = installation
        self._take = take
        self._now = now

    async def happened(self, body: dict[str, Any]) -> None:
        if where := self._workspace(body):
            await self._note(events.happened(body, where))

    async def commanded(self, body: dict[str, Any], ack: AsyncAck) -> None:
        if where := self._workspace(body):
            await self._note(events.commanded(body, where, self._now()))
        await ack()

    async def pressed(self, body: dict[str, Any], ack: AsyncAck) -> None:
        if where := self._workspace(body):
            await self._note(events.pressed(body, where, self._now()))
        await ack()

    async def submitted(self, body: dict[str, Any], ack: AsyncAck) -> None:
        if where := self._workspace(body):
            await self._note(events.submitted(body, where, self._now()))
        await ack()

    async def heard(self, ack: AsyncAck) -> None:
        await ack()

    async def open_flag_form(self, body: dict[str, Any]) -> None:
        if body.get("callback_id") == FLAG_SHORTCUT and (asked := events.asked_for_flag(body)):
            await self._open(body, *asked, flag_form(asked[1]))

    async def open_reason_form(self, body: dict[str, Any]) -> None:
        if asked := events.asked_for_reason(body):
            await self._open(body, *asked, reason_form(asked[1]))

    async def _open(self, body: Body, trigger: str, about: Subject, form: dict[str, Any]) -> None:
        try:
            await self._web.call("views.open", trigger_id=trigger, view=form)
        except MossError as problem:
            log.warning("a form was not opened", why=problem.sentence)
            await self._excuse(body, trigger, about)
        except Exception:
            log.exception("a form was not opened")
            await self._excuse(body, trigger, about)

    async def _excuse(self, body: Body, trigger: str, about: Subject) -> None:
        where, user = self._workspace(body), body.get("user")
        if where is None or not isinstance(user, dict):
            return
        place, person = where.place(about.channel, about.thread), where.person(str(user.get("id", "")))
        try:
            await self._chat.whisper(place, person, NO_FORM, about.answer_to, f"form:{trigger}")
        except MossError as problem:
            log.warning("nobody could be told", why=problem.sentence)

    def _workspace(self, body: Body) -> Workspace | None:
        """None for an installation that is none of ours: it is heard, and that is all."""
        found = self._installation(body)
        if found is None:
            log.warning("a delivery for a workspace that is not configured", type=str(body.get("type", ""))[:40])
        return found

    async def _note(self, event: AnyEvent | None) -> None:
        if event is not None:
            await self._take(event)


def _authorize(web: Web) -> Callable[..., Awaitable[AuthorizeResult]]:
    async def authorize(enterprise_id: str | None, team_id: str | None) -> AuthorizeResult:
        """Without asking Slack: an acknowledgement waits for nobody. Whose delivery it is, is looked at later."""
        return AuthorizeResult(enterprise_id=enterprise_id, team_id=team_id, bot_token=web.client.token)

    return authorize


async def _failed(error: Exception) -> None:
    if isinstance(error, MossError):
        log.warning("a delivery of Slack was not taken", why=error.sentence)
    else:
        log.error("a delivery of Slack was not taken", exc_info=error)
