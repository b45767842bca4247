"""A Slack on the loopback: Web API, Socket Mode, addresses for private answers, signed calls; with faults on demand."""

import asyncio
import hashlib
import hmac
import json
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import WSMsgType, web

from tests.support.until import until

TEAM, BOT_USER, BOT, CHANNEL = "T1", "UMOSS", "BMOSS", "C1"
SECRET = "8f742231b10e8888abcd99yyyzzz85a5"

JSON = dict[str, Any]


@dataclass
class Fault:
    error: str = ""
    status: int = 200
    retry_after: str = ""
    after: bool = False
    """What was asked for happens, and the answer is lost."""
    more: JSON = field(default_factory=dict)


@dataclass
class LoopbackSlack:
    url: str = ""
    calls: list[tuple[str, JSON]] = field(default_factory=list)
    messages: dict[tuple[str, str], JSON] = field(default_factory=dict)
    whispers: list[JSON] = field(default_factory=list)
    answers: list[JSON] = field(default_factory=list)
    """At the addresses for private answers."""
    answered: dict[str, list[JSON]] = field(default_factory=lambda: defaultdict(list))
    """The same by address."""
    views: list[JSON] = field(default_factory=list)
    signs: set[tuple[str, str]] = field(default_factory=set)
    auth: JSON = field(default_factory=lambda: {"team_id": TEAM, "user_id": BOT_USER})
    """Whose token it is."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """User groups, and who is in them."""
    reactions: dict[str, list[JSON]] = field(default_factory=dict)
    """On a message, as they stand."""
    outside: set[str] = field(default_factory=set)
    """Channels that Moss is not in."""
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    opened: int = 0
    most: int = 0
    """Sockets that were open at one time."""
    acks: dict[str, JSON] = field(default_factory=dict)
    dumb: bool = False
    """New sockets never say hello."""
    heartless: bool = False
    """Pings are not answered."""
    answers_gone: bool = False
    _numbers: Any = field(default_factory=lambda: count(1))

    # What tests do

    @property
    def settings(self) -> JSON:
        return {"bot_token": "xoxb-test", "base_url": f"{self.url}/api/", "ping_interval_s": 0.5}

    def fail(self, method: str, *faults: Fault) -> None:
        self.faults[method].extend(faults)

    def called(self, method: str) -> list[JSON]:
        return [arguments for name, arguments in self.calls if name == method]

    def texts(self, channel: str = CHANNEL) -> list[str]:
        return [one["text"] for (where, _), one in self.messages.items() if where == channel]

    async def push(self, type_: str, payload: JSON, *, retry: int = 0, reason: str = "") -> str:
        """Send an envelope on the newest socket; its id."""
        id = f"env-{next(self._numbers)}"
        frame: JSON = {"type": type_, "envelope_id": id, "payload": payload, "accepts_response_payload": True}
        if type_ == "events_api":
            frame |= {"retry_attempt": retry, "retry_reason": reason}
        await self.sockets[-1].send_json(frame)
        return id

    async def acked(self, id: str, within_s: float = 10) -> JSON:
        await until(lambda: id in self.acks, within_s)
        return self.acks[id]

    async def deliver(self, type_: str, payload: JSON, **more: Any) -> JSON:
        return await self.acked(await self.push(type_, payload, **more))

    async def event(self, event: JSON, *, id: str = "", **more: Any) -> JSON:
        return await self.deliver("events_api", self.envelope(event, id), **more)

    def envelope(self, event: JSON, id: str = "") -> JSON:
        return {
            "type": "event_callback",
            "team_id": TEAM,
            "api_app_id": "A1",
            "event_id": id or f"Ev{next(self._numbers)}",
            "authorizations": [{"team_id": TEAM, "user_id": BOT_USER, "is_bot": True}],
            "event": event,
        }

    def command(self, words: str, user: str = "U1", channel: str = CHANNEL) -> JSON:
        n = next(self._numbers)
        return {
            "command": "/moss", "text": words, "team_id": TEAM, "channel_id": channel, "user_id": user,
            "trigger_id": f"{n}.1.abc", "response_url": f"{self.url}/answer/{n}", "api_app_id": "A1",
        }  # fmt: skip

    def press(self, button: JSON, message: str, user: str = "U2") -> JSON:
        n = next(self._numbers)
        return {
            "type": "block_actions", "team": {"id": TEAM}, "user": {"id": user, "team_id": TEAM},
            "api_app_id": "A1", "trigger_id": f"{n}.2.abc", "response_url": f"{self.url}/answer/{n}",
            "container": {"type": "message", "channel_id": CHANNEL, "message_ts": message},
            "channel": {"id": CHANNEL}, "actions": [{"type": "button", **button, "action_ts": self.stamp()}],
        }  # fmt: skip

    def shortcut(self, message: str, user: str = "U1", thread: str = "") -> JSON:
        n = next(self._numbers)
        about = {"type": "message", "ts": message, "user": BOT_USER, "text": "x"}
        return {
            "type": "message_action", "callback_id": "moss_flag", "trigger_id": f"{n}.3.abc",
            "team": {"id": TEAM}, "user": {"id": user}, "channel": {"id": CHANNEL},
            "message_ts": message, "message": about | ({"thread_ts": thread} if thread else {}),
            "response_url": f"{self.url}/answer/{n}",
        }  # fmt: skip

    def submission(self, view: JSON, values: JSON, user: str = "U1") -> JSON:
        state = {name: {name: value} for name, value in values.items()}
        sent = view | {"id": f"V{next(self._numbers)}", "app_installed_team_id": TEAM, "state": {"values": state}}
        return {"type": "view_submission", "team": {"id": TEAM}, "user": {"id": user}, "view": sent}

    async def disconnect(self, reason: str = "refresh_requested") -> None:
        await self.sockets[-1].send_json({"type": "disconnect", "reason": reason, "debug_info": {}})

    def abort(self) -> None:
        """The line is cut."""
        for socket in self.sockets:
            if socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()

    def stamp(self) -> str:
        return f"{1_790_000_000 + next(self._numbers)}.000100"

    # What the app does

    def app(self) -> web.Application:
        app = web.Application(client_max_size=10_000_000)
        app.router.add_route("*", "/api/{method}", self._call)
        app.router.add_get("/socket", self._socket)
        app.router.add_post("/answer/{n}", self._answer)
        app.router.add_post("/upload/{n}", self._upload)
        return app

    async def _call(self, request: web.Request) -> web.Response:
        method, given = request.match_info["method"], dict(request.query)
        if request.can_read_body:
            if request.content_type == "application/json":
                given |= await request.json()
            else:
                given |= {name: str(value) for name, value in (await request.post()).items()}
        self.calls.append((method, given))
        fault = self.faults[method].popleft() if self.faults[method] else None
        if fault and not fault.after:
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            said = {"ok": False, "error": fault.error, **fault.more}
            return web.json_response(said, status=fault.status, headers=headers)
        answer = getattr(self, "_" + method.replace(".", "_").lower(), None)
        said = answer(given) if answer else {"ok": False, "error": "unknown_method"}
        if fault and request.transport is not None:
            request.transport.abort()
        return web.json_response(said)

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        self.sockets.append(socket)
        self.most = max(self.most, len(self.sockets))
        if not self.dumb:
            await socket.send_json({"type": "hello", "num_connections": len(self.sockets)})
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    said = json.loads(message.data)
                    self.acks[said["envelope_id"]] = said
                elif message.type is WSMsgType.PING and not self.heartless:
                    await socket.pong(message.data)
        finally:
            self.sockets.remove(socket)
        return socket

    async def _answer(self, request: web.Request) -> web.Response:
        if self.answers_gone:
            return web.json_response({"ok": False, "error": "expired_url"}, status=404)
        self.answers.append(await request.json())
        self.answered[f"{self.url}{request.path}"].append(self.answers[-1])
        return web.json_response({"ok": True})

    async def _upload(self, request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text="OK")

    def _auth_test(self, given: JSON) -> JSON:
        return {"ok": True, "bot_id": BOT, "url": "https://acme.slack.com/", **self.auth}

    def _apps_connections_open(self, given: JSON) -> JSON:
        self.opened += 1
        return {"ok": True, "url": f"{self.url.replace('http', 'ws')}/socket?ticket={self.opened}"}

    def _chat_postmessage(self, given: JSON) -> JSON:
        if given["channel"] in self.outside:
            return {"ok": False, "error": "not_in_channel"}
        stamp = self.stamp()
        self.messages[given["channel"], stamp] = given | {"ts": stamp, "user": BOT_USER, "bot_id": BOT}
        return {"ok": True, "channel": given["channel"], "ts": stamp}

    def _chat_update(self, given: JSON) -> JSON:
        found = self.messages.get((given["channel"], given["ts"]))
        if found is None:
            return {"ok": False, "error": "message_not_found"}
        found.update(given)
        return {"ok": True, "ts": given["ts"]}

    def _chat_postephemeral(self, given: JSON) -> JSON:
        self.whispers.append(given)
        return {"ok": True, "message_ts": self.stamp()}

    def _reactions_add(self, given: JSON) -> JSON:
        self.signs.add((given["timestamp"], given["name"]))
        return {"ok": True}

    def _reactions_remove(self, given: JSON) -> JSON:
        self.signs.discard((given["timestamp"], given["name"]))
        return {"ok": True}

    def _reactions_get(self, given: JSON) -> JSON:
        if (given["channel"], given["timestamp"]) not in self.messages:
            return {"ok": False, "error": "message_not_found"}
        message = {"ts": given["timestamp"], "reactions": self.reactions.get(given["timestamp"], [])}
        return {"ok": True, "type": "message", "message": message}

    def _conversations_history(self, given: JSON) -> JSON:
        here = [
            one for (where, _), one in self.messages.items() if where == given["channel"] and not one.get("thread_ts")
        ]
        return {"ok": True, "messages": here[::-1][: int(given["limit"])]}

    def _conversations_replies(self, given: JSON) -> JSON:
        root = given["ts"]
        here = [
            one
            for (where, stamp), one in self.messages.items()
            if where == given["channel"] and root in (stamp, one.get("thread_ts"))
        ]
        return (
            {"ok": True, "messages": here[: int(given["limit"])]}
            if here
            else {"ok": False, "error": "thread_not_found"}
        )

    def _usergroups_users_list(self, given: JSON) -> JSON:
        users = self.groups.get(given["usergroup"])
        return {"ok": False, "error": "no_such_subteam"} if users is None else {"ok": True, "users": users}

    def _views_open(self, given: JSON) -> JSON:
        self.views.append(given["view"])
        return {"ok": True, "view": {"id": f"V{next(self._numbers)}"}}

    def _files_getuploadurlexternal(self, given: JSON) -> JSON:
        n = next(self._numbers)
        return {"ok": True, "upload_url": f"{self.url}/upload/{n}", "file_id": f"F{n}"}

    def _files_completeuploadexternal(self, given: JSON) -> JSON:
        files = json.loads(given["files"]) if isinstance(given["files"], str) else given["files"]
        return {"ok": True, "files": [{"id": one["id"]} for one in files]}


@asynccontextmanager
async def loopback_slack() -> AsyncIterator[LoopbackSlack]:
    slack = LoopbackSlack()
    runner = web.AppRunner(slack.app(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    slack.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    try:
        yield slack
    finally:
        await runner.cleanup()


async def call(
    port: int, body: JSON, *, secret: str = SECRET, age_s: float = 0, form: bool = False, retry: int = 0
) -> int:
    """What Slack does over HTTP: a signed call; its status."""
    if form:
        flat = body if "command" in body else {"payload": json.dumps(body)}
        raw, kind = urlencode(flat), "application/x-www-form-urlencoded"
    else:
        raw, kind = json.dumps(body), "application/json"
    stamp = str(int(time.time() - age_s))
    signature = "v0=" + hmac.new(secret.encode(), f"v0:{stamp}:{raw}".encode(), hashlib.sha256).hexdigest()
    headers = {"Content-Type": kind, "X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature}
    headers |= {"X-Slack-Retry-Num": str(retry), "X-Slack-Retry-Reason": "http_timeout"} if retry else {}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/slack/events", data=raw, headers=headers) as answer,
    ):
        return answer.status


def reaction(
    message: str, emoji: str = "thumbsdown", user: str = "U1", *, added: bool = True, at: str = "1790000000.1"
) -> JSON:
    return {
        "type": "reaction_added" if added else "reaction_removed", "user": user, "reaction": emoji,
        "item": {"type": "message", "channel": CHANNEL, "ts": message}, "event_ts": at,
    }  # fmt: skip


def said(text: str, stamp: str, user: str = "U1", **more: Any) -> JSON:
    return {
        "type": "message",
        "channel": CHANNEL,
        "channel_type": "channel",
        "user": user,
        "text": text,
        "ts": stamp,
        **more,
    }


async def forever(slack: LoopbackSlack, type_: str, payload: JSON) -> None:
    """As Slack does with what is not acknowledged: it comes again, with another number."""
    for retry in range(4):
        if slack.sockets:
            id = await slack.push(type_, payload, retry=retry, reason="timeout" if retry else "")
            try:
                await slack.acked(id, 1.0)
                return
            except TimeoutError:
                pass
        await asyncio.sleep(0.2)
    raise AssertionError("nobody acknowledged it")
