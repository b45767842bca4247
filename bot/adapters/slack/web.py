"""Slack's Web API: one place for its pace, its refusals and the scopes it wants."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bot.sections import Slack
from core.model.errors import Refused, Unavailable

CALL_S = 10
PATIENCE_S = 12.0
"""A longer pause that Slack asks for is left to whoever asked: they come back."""
TRIES = 3
"""Of a call that Slack puts off."""
LONGEST_PUT_OFF_S = 300.0

SCOPES: Mapping[str, str] = {
    "apps.connections.open": "",
    "auth.test": "",
    "chat.postMessage": "chat:write",
    "chat.update": "chat:write",
    "chat.postEphemeral": "chat:write",
    "conversations.history": "channels:history",
    "conversations.replies": "channels:history",
    "files.upload_v2": "files:write",
    "reactions.add": "reactions:write",
    "reactions.get": "reactions:read",
    "reactions.remove": "reactions:write",
    "usergroups.users.list": "usergroups:read",
    "views.open": "",
}
"""Every method that Moss calls, with the scope it takes. `docs/slack-manifest.yaml` asks for these and no others."""

TOKEN = frozenset(
    {"account_inactive", "invalid_auth", "not_authed", "token_expired", "token_revoked", "ekm_access_denied"}
)
AWAY = frozenset(
    {"fatal_error", "internal_error", "ratelimited", "rate_limited", "request_timeout", "service_unavailable"}
)
SENTENCES: Mapping[str, str] = {
    "cant_update_message": "The message is not one of Moss's any more, so it cannot be changed.",
    "channel_not_found": "Slack shows Moss no channel {channel}; invite Moss there, or correct the channel's id.",
    "edit_window_closed": "Slack lets nobody edit that message any more.",
    "is_archived": "The channel {channel} of Slack is archived; bring it back, or name another one.",
    "message_not_found": "The message is gone from Slack.",
    "no_such_subteam": "Slack has no such user group; correct its id in [permits] of moss.toml.",
    "not_in_channel": "Moss is not in the channel {channel} of Slack; invite it there with `/invite`.",
    "thread_not_found": "The thread is gone from Slack.",
    "user_not_in_channel": "That person is not in the channel {channel} of Slack, so nothing can be shown there.",
}

QUIET = logging.getLogger("moss.slack")
"""What the libraries would say of requests and tokens goes nowhere: Moss logs what it makes of it."""
QUIET.setLevel(logging.CRITICAL)


class SlackRefused(Refused):
    def __init__(self, sentence: str, error: str) -> None:
        super().__init__(sentence)
        self.error = error


class NeverCame(Unavailable):
    """Slack said so itself: what was asked for has surely not happened."""


@dataclass(slots=True)
class Web:
    client: AsyncWebClient
    hooks: tuple[str, ...]
    """How the addresses begin at which private answers are taken."""
    _not_before: dict[str, float] = field(default_factory=dict)
    """Per method and channel: when Slack wants to hear of it again."""

    @classmethod
    def of(cls, settings: Slack) -> "Web":
        base = settings.base_url
        client = AsyncWebClient(
            token=settings.bot_token.get_secret_value(),
            base_url=base,
            timeout=CALL_S,
            logger=QUIET,
            retry_handlers=[],  # one that comes back by itself after a broken connection would post twice
        )
        origin = "/".join(base.split("/")[:3]) + "/"
        return cls(client, ("https://hooks.slack.com/", origin))

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Raises NeverCame, Unavailable or SlackRefused."""
        assert method in SCOPES, f"{method} is not among the methods the manifest asks for"
        channel = str(arguments.get("channel") or "")
        lane = f"{method} {channel}"
        for n in range(TRIES):
            await self._turn(lane)
            try:
                answer = await getattr(self.client, method.replace(".", "_"))(**arguments)
                return dict(answer.data)
            except SlackApiError as problem:
                wait_s = _put_off(problem)
                if wait_s is None:
                    raise _said(problem, method, channel) from None
                self._not_before[lane] = asyncio.get_running_loop().time() + wait_s
                if n == TRIES - 1:
                    break
            except (aiohttp.ClientError, SlackClientError, OSError, TimeoutError, ValueError) as problem:
                raise Unavailable(f"Slack cannot be reached for {method} ({type(problem).__name__}).") from None
        raise NeverCame(f"Slack puts {method} off, since too much was asked of it; it is tried again.")

    async def answer(self, url: str, body: dict[str, Any]) -> None:
        """To an address that came with a command or a press. It takes five answers within half an hour."""
        if not url.startswith(self.hooks):
            raise SlackRefused("The address for the private answer is none of Slack's.", "foreign_address")
        hook = AsyncWebhookClient(url, timeout=CALL_S, logger=QUIET, retry_handlers=[])
        try:
            answered = await hook.send_dict(body)
        except (aiohttp.ClientError, SlackClientError, OSError, TimeoutError, ValueError) as problem:
            raise Unavailable(f"Slack takes no private answer ({type(problem).__name__}).") from None
        if answered.status_code != 200:
            raise SlackRefused("Slack does not take the private answer any more.", f"status {answered.status_code}")

    async def _turn(self, lane: str) -> None:
        wait_s = self._not_before.get(lane, 0.0) - asyncio.get_running_loop().time()
        if wait_s > PATIENCE_S:
            raise NeverCame(f"Slack wants to hear of {lane.strip()} in {wait_s:.0f} s again, and not before.")
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        else:
            self._not_before.pop(lane, None)


def _put_off(problem: SlackApiError) -> float | None:
    """For how long, when that is why."""
    response = problem.response
    if getattr(response, "status_code", 0) != 429 and _error(problem) not in ("ratelimited", "rate_limited"):
        return None
    headers = {str(name).lower(): value for name, value in dict(getattr(response, "headers", {}) or {}).items()}
    try:
        return min(max(float(headers.get("retry-after", 1)), 0.1), LONGEST_PUT_OFF_S)
    except ValueError:
        return 1.0


def _error(problem: SlackApiError) -> str:
    data = getattr(problem.response, "data", None)
    return str(data.get("error", "")) if isinstance(data, dict) else ""


def _said(problem: SlackApiError, method: str, channel: str) -> Unavailable | SlackRefused:
    error, status = _error(problem), int(getattr(problem.response, "status_code", 0))
    if error in TOKEN:
        return NeverCame(f"Slack does not take Moss's token ({error}); put a fresh `bot_token` into [slack].")
    if error == "missing_scope":
        data = problem.response.data
        scope = data.get("needed") or SCOPES[method]
        return NeverCame(
            f"Slack does not allow Moss {method}, since the scope {scope} is missing; add it and install the app again."
        )
    if error in AWAY or not error or status >= 500:
        return Unavailable(f"Slack failed at {method} ({error or status}); it is tried again.")
    sentence = SENTENCES.get(error, f"Slack refuses {method}: {error[:60]}.")
    return SlackRefused(sentence.format(channel=channel), error)
