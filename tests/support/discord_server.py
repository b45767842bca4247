"""Discord on the loopback interface: its gateway and its HTTP interface, as far as a bot sees them, with faults."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any
from urllib.parse import unquote

from aiohttp import WSMsgType, web

from tests.support.until import until

APP, BOT, GUILD, CHANNEL = 4000, 4000, 1000, 2000
FORUM, VOICE, STAGE = 2001, 2002, 2003
KINDS = {CHANNEL: 0, FORUM: 15, VOICE: 2, STAGE: 13}
EPOCH_MS = 1420070400000
Json = dict[str, Any]


def user(id: int, name: str, *, bot: bool = False) -> Json:
    return {"id": str(id), "username": name, "discriminator": "0", "avatar": None, "global_name": name, "bot": bot}


ME = user(BOT, "Moss", bot=True)


@dataclass
class Session:
    id: str
    socket: web.WebSocketResponse
    told: list[Json] = field(default_factory=list)


@dataclass
class DiscordServer:
    url: str = ""
    heartbeat_ms: int = 20_000
    # What was asked of it
    calls: list[tuple[str, str]] = field(default_factory=list)
    identified: list[Json] = field(default_factory=list)
    resumed: int = 0
    registered_commands: list[Json] = field(default_factory=list)
    registered: int = 0
    callbacks: dict[str, Json] = field(default_factory=dict)
    """What each interaction was answered with at first, by its id."""
    answers: dict[str, Json] = field(default_factory=dict)
    """What stands in the place of `is thinking`, by the interaction's token."""
    messages: dict[int, list[Json]] = field(default_factory=dict)
    """By channel, oldest first."""
    threads: dict[int, Json] = field(default_factory=dict)
    archived: set[int] = field(default_factory=set)
    """Threads that nobody wrote in for long."""
    answered: dict[int, Json] = field(default_factory=dict)
    """What messages that answer another say of it, by their ids."""
    typing: list[int] = field(default_factory=list)
    reactions: dict[int, dict[str, list[Json]]] = field(default_factory=dict)
    bursts: dict[int, dict[str, list[Json]]] = field(default_factory=dict)
    nonces: dict[str, Json] = field(default_factory=dict)
    roles: dict[int, list[str]] = field(default_factory=dict)
    """Of the members, by their ids."""
    # Faults
    refused_handshakes: int = 0
    silent: bool = False
    """The gateway says nothing any more, though its socket stays open."""
    limited: int = 0
    """So many of the next calls are answered with 429."""
    limit_s: float = 0.05
    limit_all: bool = False
    """The limit is for all paths together."""
    broken: dict[str, int | tuple[int, int]] = field(default_factory=dict)
    """Methods and paths that fail, and with which status, and code."""
    closed_doors: set[int] = field(default_factory=set)
    """People who take no direct messages."""
    drop_answer: int = 0
    """So many of the next messages are taken, and the answer never arrives."""
    _ids: Any = field(default_factory=lambda: count(1))
    _session: Session | None = None
    """The last that began."""
    _sessions: list[Session] = field(default_factory=list)
    """Of each process that is connected."""
    _socket: web.WebSocketResponse | None = None
    application_flags: int = 1 << 19
    """Message content, as a small application has it."""
    _ready: asyncio.Event = field(default_factory=asyncio.Event)
    _clock: Callable[[], int] = lambda: 1_760_000_000_000

    # Starting

    @asynccontextmanager
    async def running(self, now_ms: Callable[[], int]) -> AsyncIterator["DiscordServer"]:
        self._clock = now_ms
        app = web.Application(middlewares=[self._faults])
        api = "/api/v10"
        route = app.router.add_route
        route("GET", "/", self._gateway)
        route("GET", f"{api}/users/@me", self._json(lambda r, b: ME))
        route("GET", f"{api}/oauth2/applications/@me", self._json(lambda r, b: self._application()))
        route(
            "GET",
            f"{api}/users/@me/guilds",
            self._json(lambda r, b: [{"id": str(GUILD), "name": "Acme", "icon": None}]),
        )
        route("PUT", f"{api}/applications/{{app}}/commands", self._json(self._register))
        route("POST", f"{api}/users/@me/channels", self._json(self._direct))
        route("GET", f"{api}/channels/{{channel}}", self._json(self._channel))
        route("GET", f"{api}/guilds/{{guild}}/members/{{user}}", self._json(self._member))
        route("POST", f"{api}/channels/{{channel}}/typing", self._json(self._type))
        route("GET", f"{api}/channels/{{channel}}/messages", self._json(self._listing))
        route("POST", f"{api}/channels/{{channel}}/messages", self._json(self._post))
        route("GET", f"{api}/channels/{{channel}}/messages/{{message}}", self._json(self._get))
        route("PATCH", f"{api}/channels/{{channel}}/messages/{{message}}", self._json(self._edit))
        route("POST", f"{api}/channels/{{channel}}/messages/{{message}}/threads", self._json(self._thread))
        route("POST", f"{api}/channels/{{channel}}/threads", self._json(self._forum_post))
        route("GET", f"{api}/guilds/{{guild}}/threads/active", self._json(self._active))
        route("PATCH", f"{api}/channels/{{channel}}", self._json(self._edit_channel))
        route("GET", f"{api}/channels/{{channel}}/messages/{{message}}/reactions/{{emoji}}", self._json(self._reacted))
        route("POST", f"{api}/interactions/{{id}}/{{token}}/callback", self._json(self._callback))
        route("PATCH", f"{api}/webhooks/{APP}/{{token}}/messages/@original", self._json(self._original))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self.url = f"127.0.0.1:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def id(self) -> int:
        """A snowflake of this moment."""
        return ((self._clock() - EPOCH_MS) << 22) + next(self._ids)

    # What people do

    async def connected(self, within_s: float = 10) -> None:
        async with asyncio.timeout(within_s):
            await self._ready.wait()

    async def tell(self, kind: str, data: Json) -> Json:
        """An event, to whoever is connected; it is kept for a resumption."""
        assert self._session is not None
        event: Json = {}
        for session in [*(one for one in self._sessions if one is not self._session), self._session]:
            event = await self._tell(session, kind, data)
        return event

    async def _tell(self, session: Session, kind: str, data: Json) -> Json:
        event = {"op": 0, "t": kind, "s": len(session.told) + 1, "d": data}
        session.told.append(event)
        if not session.socket.closed and not self.silent:
            await session.socket.send_json(event, dumps=_told)
        return event

    async def again(self, event: Json) -> None:
        """The same delivery once more."""
        await self._send(event)

    async def says(self, who: int, text: str, channel: int = CHANNEL, *, guild: int | None = GUILD, **more: Any) -> int:
        author = more.pop("author", user(who, f"user{who}"))
        mentions = [ME] if f"<@{BOT}>" in text else []
        one = self._message(channel, author, {"content": text, "mentions": mentions} | more)
        self.messages.setdefault(channel, []).append(one)
        await self.tell("MESSAGE_CREATE", one | ({"guild_id": str(guild)} if guild else {}))
        return int(one["id"])

    async def posts(self, who: int, title: str, text: str, *, told: bool = True) -> int:
        """In the forum: the thread, which has the id of its first message."""
        author = user(who, f"user{who}")
        mentions = [ME] if f"<@{BOT}>" in text else []
        one = self._message(0, author, {"content": text, "mentions": mentions})
        id = int(one["id"])
        one["channel_id"], self.messages[id] = str(id), [one]
        made = self.threads[id] = thread(id, FORUM, title) | {"owner_id": str(who)}
        if told:
            await self.tell("THREAD_CREATE", made | {"newly_created": True})
        await self.tell("MESSAGE_CREATE", one | {"guild_id": str(GUILD)})
        return id

    async def reacts(
        self,
        who: int,
        message: int,
        emoji: str = "👎",
        *,
        added: bool = True,
        channel: int = CHANNEL,
        told: bool = True,
        burst: bool = False,
    ) -> Json:
        people = (self.bursts if burst else self.reactions).setdefault(message, {}).setdefault(emoji, [])
        people[:] = [one for one in people if one["id"] != str(who)] + ([user(who, f"user{who}")] if added else [])
        data: Json = {"user_id": str(who), "channel_id": str(channel), "message_id": str(message)}
        data |= {"guild_id": str(GUILD), "emoji": {"id": None, "name": emoji}, "type": int(burst), "burst": burst}
        return await self.tell(f"MESSAGE_REACTION_{'ADD' if added else 'REMOVE'}", data) if told else {}

    async def commands(self, who: int, verb: str, channel: int = CHANNEL, **options: Any) -> str:
        """`/moss verb`; the interaction's token."""
        return await self._interaction(who, 2, self._slash(verb, options), channel)

    async def types(self, who: int, verb: str, option: str, so_far: str) -> list[str]:
        """What the menu offers."""
        data = self._slash(verb, {option: so_far})
        data["options"][0]["options"][0]["focused"] = True
        token = await self._interaction(who, 4, data, CHANNEL)
        return [one["value"] for one in (await self.callback(token))["data"]["choices"]]

    async def opens_menu(self, who: int, message: int, channel: int = CHANNEL) -> str:
        """Chooses the entry in the message's menu."""
        found = next(one for one in self.messages[channel] if one["id"] == str(message))
        data = {"id": "78", "name": "Flag for Moss", "type": 3, "target_id": str(message)}
        return await self._interaction(who, 2, data | {"resolved": {"messages": {str(message): found}}}, channel)

    async def presses(self, who: int, custom_id: str, message: int, channel: int = CHANNEL) -> str:
        found = next(one for one in self.messages[channel] if one["id"] == str(message))
        data = {"custom_id": custom_id, "component_type": 2}
        return await self._interaction(who, 3, data, channel, message=found)

    async def fills_in(self, who: int, custom_id: str, reason: str, channel: int = CHANNEL, **more: Any) -> str:
        field_ = {"type": 4, "custom_id": "reason", "value": reason, "id": 2}
        data = {"custom_id": custom_id, "components": [{"type": 1, "id": 1, "components": [field_]}]}
        return await self._interaction(who, 5, data, channel, **more)

    async def callback(self, token: str, within_s: float = 5) -> Json:
        await until(lambda: token in self.callbacks, within_s)
        return self.callbacks[token]

    async def answer(self, token: str, within_s: float = 10) -> Json:
        await until(lambda: token in self.answers, within_s)
        return self.answers[token]

    # Faults of the gateway

    async def sends(self, frame: str | bytes) -> None:
        """As it is."""
        assert self._socket is not None
        if isinstance(frame, str):
            await self._socket.send_str(frame)
        else:
            await self._socket.send_bytes(frame)

    async def op7(self) -> None:
        self._ready.clear()
        await self._send({"op": 7, "d": None})

    async def op9(self) -> None:
        self._ready.clear()
        self._session, self._sessions = None, []
        await self._send({"op": 9, "d": False}, force=True)

    async def abort(self) -> None:
        """The connection is reset, without a word."""
        self._ready.clear()
        assert self._socket is not None
        transport = self._socket._req.transport if self._socket._req else None
        assert transport is not None
        transport.abort()

    def tell_nobody(self, kind: str, data: Json) -> None:
        """An event while nobody was connected: a resumption brings it."""
        assert self._session is not None
        self._session.told.append({"op": 0, "t": kind, "s": len(self._session.told) + 1, "d": data})

    # The gateway

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        if self.refused_handshakes:
            self.refused_handshakes -= 1
            return web.Response(status=503)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._socket, self.silent = socket, False
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": self.heartbeat_ms}})
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            await self._hear(socket, json.loads(message.data))
        return socket

    async def _hear(self, socket: web.WebSocketResponse, frame: Json) -> None:
        match frame["op"]:
            case 1 if not self.silent:
                await socket.send_json({"op": 11})
            case 2:
                self.identified.append(frame["d"])
                self._session = Session(f"s{len(self.identified)}", socket)
                self._sessions = [*(one for one in self._sessions if not one.socket.closed), self._session]
                guilds = [{"id": str(GUILD), "unavailable": True}]
                ready = {"v": 10, "user": ME, "guilds": guilds, "session_id": self._session.id}
                ready |= {"resume_gateway_url": f"ws://{self.url}/", "application": {"id": str(APP), "flags": 0}}
                await self._tell(self._session, "READY", ready)
                await self._tell(self._session, "GUILD_CREATE", self._guild())
                self._ready.set()
            case 6:
                if self._session is None or frame["d"]["session_id"] != self._session.id:
                    await socket.send_json({"op": 9, "d": False})
                    return
                self.resumed += 1
                self._session.socket = socket
                for event in self._session.told[frame["d"]["seq"] :]:
                    await socket.send_json(event, dumps=_told)
                await self._tell(self._session, "RESUMED", {})
                self._ready.set()

    async def _send(self, frame: Json, *, force: bool = False) -> None:
        if self._socket is not None and not self._socket.closed and (force or not self.silent):
            await self._socket.send_json(frame, dumps=_told)

    def _guild(self) -> Json:
        channels = [
            {"id": str(id), "type": kind, "name": f"help-{kind}", "position": 0, "permission_overwrites": []}
            | ({"available_tags": [], "flags": 0} if kind == 15 else {})
            | ({"bitrate": 64000, "user_limit": 0} if kind in (2, 13) else {})
            for id, kind in KINDS.items()
        ]
        everyone = {"id": str(GUILD), "name": "@everyone", "permissions": "0", "position": 0, "color": 0}
        everyone |= {"hoist": False, "managed": False, "mentionable": False}
        return {
            "id": str(GUILD), "name": "Acme", "owner_id": "1", "roles": [everyone], "emojis": [], "features": [],
            "channels": channels, "threads": [], "members": [], "member_count": 3, "stickers": [],
            "verification_level": 0, "default_message_notifications": 0, "explicit_content_filter": 0, "mfa_level": 0,
            "nsfw_level": 0, "premium_tier": 0, "system_channel_flags": 0, "preferred_locale": "en-US", "large": False,
        }  # fmt: skip

    # The HTTP interface

    @web.middleware
    async def _faults(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        path = unquote(request.path).removeprefix("/api/v10")
        if path != "/":
            self.calls.append((request.method, path))
            if self.limited:
                self.limited -= 1
                wait = {"message": "You are being rate limited.", "retry_after": self.limit_s, "global": self.limit_all}
                headers = {"Via": "1.1 loopback", "Content-Type": "application/json"}
                return web.Response(status=429, body=json.dumps(wait).encode(), headers=headers)
            for broken, how in self.broken.items():
                if broken in f"{request.method} {path}":
                    status, code = how if isinstance(how, tuple) else (how, 0)
                    return _problem(status, code, "broken on purpose")
        return await handler(request)

    def _json(self, answer: Callable[[web.Request, Json], Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def respond(request: web.Request) -> web.Response:
            body: Json = {}
            if request.content_type == "multipart/form-data":
                form = await request.post()
                body = json.loads(str(form["payload_json"]))
                body["files"] = {name: part.file.read() for name, part in form.items() if hasattr(part, "file")}
            elif request.can_read_body:
                body = await request.json()
            said = answer(request, body)
            if isinstance(said, web.Response):
                return said
            if said is None:
                return web.Response(status=204)
            # exactly this content type: discord.py reads no other
            whole = _told(said).encode()
            return web.Response(body=whole, headers={"Content-Type": "application/json"})

        return respond

    def _application(self) -> Json:
        return {
            "id": str(APP), "name": "Moss", "description": "", "icon": None, "bot_public": False, "verify_key": "",
            "bot_require_code_grant": False, "owner": user(1, "owner"), "flags": self.application_flags,
        }  # fmt: skip

    def _register(self, request: web.Request, body: Any) -> Any:
        self.registered += 1
        self.registered_commands = body
        base = {"application_id": str(APP), "version": "1", "description": ""}
        return [base | one | {"id": str(70 + n)} for n, one in enumerate(body)]

    def _direct(self, request: web.Request, body: Json) -> Json:
        who = int(body["recipient_id"])
        return {"id": str(who + 1_000_000), "type": 1, "recipients": [user(who, f"user{who}")]}

    def _member(self, request: web.Request, body: Json) -> Any:
        roles = self.roles.get(int(request.match_info["user"]))
        if request.match_info["guild"] != str(GUILD):
            return _problem(403, 50001, "Missing Access")
        return {"roles": roles} if roles is not None else _problem(404, 10007, "Unknown Member")

    def _channel(self, request: web.Request, body: Json) -> Any:
        id = int(request.match_info["channel"])
        if id in KINDS:
            return next(one for one in self._guild()["channels"] if one["id"] == str(id)) | {"guild_id": str(GUILD)}
        return self.threads.get(id) or _problem(404, 10003, "Unknown Channel")

    def _type(self, request: web.Request, body: Json) -> None:
        self.typing.append(int(request.match_info["channel"]))

    def _listing(self, request: web.Request, body: Json) -> list[Json]:
        limit = int(request.query.get("limit", "50"))
        return self.messages.get(int(request.match_info["channel"]), [])[::-1][:limit]

    def _post(self, request: web.Request, body: Json) -> Any:
        channel = int(request.match_info["channel"])
        if channel - 1_000_000 in self.closed_doors:
            return _problem(403, 50007, "Cannot send messages to this user")
        if channel == FORUM:
            return _problem(400, 50008, "Cannot send messages in a non-text channel")
        if channel < 1_000_000 and channel not in KINDS and channel not in self.threads:
            return _problem(404, 10003, "Unknown Channel")
        if (nonce := body.get("nonce")) and nonce in self.nonces:
            return self.nonces[nonce]
        made = self._message(channel, ME, body)
        self.messages.setdefault(channel, []).append(made)
        if answers := body.get("message_reference"):
            self.answered[int(made["id"])] = answers
        if nonce:
            self.nonces[nonce] = made
        if self.drop_answer:
            self.drop_answer -= 1
            return _problem(503, 0, "lost on the way")
        return made

    def _found(self, request: web.Request) -> Json | None:
        here = self.messages.get(int(request.match_info["channel"]), [])
        return next((one for one in here if one["id"] == request.match_info["message"]), None)

    def _get(self, request: web.Request, body: Json) -> Any:
        found = self._found(request)
        if found is None:
            return _problem(404, 10008, "Unknown Message")
        id = int(found["id"])
        plain, burst = self.reactions.get(id, {}), self.bursts.get(id, {})
        counts = []
        for name in {**plain, **burst}:
            details = {"normal": len(plain.get(name, [])), "burst": len(burst.get(name, []))}
            if count := sum(details.values()):
                about = {"id": None, "name": name}
                counts.append({"count": count, "count_details": details, "me": False, "emoji": about})
        return found | {"reactions": counts}

    def _edit(self, request: web.Request, body: Json) -> Any:
        found = self._found(request)
        if found is None:
            return _problem(404, 10008, "Unknown Message")
        if int(found["channel_id"]) in self.archived:
            return _problem(400, 50083, "Thread is archived")
        found.update({name: value for name, value in body.items() if name not in ("attachments", "files")})
        found["files"] = body.get("files", {})
        return found

    def _thread(self, request: web.Request, body: Json) -> Any:
        root, channel = int(request.match_info["message"]), request.match_info["channel"]
        if KINDS.get(int(channel), 0) != 0:
            return _problem(400, 50024, "Cannot execute action on this channel type")
        if root in self.threads:
            return _problem(400, 160004, "A thread has already been created for this message")
        if self._found(request) is None:
            return _problem(404, 10008, "Unknown Message")
        self.threads[root] = thread(root, channel, body["name"])
        return self.threads[root]

    def _forum_post(self, request: web.Request, body: Json) -> Any:
        if int(request.match_info["channel"]) != FORUM:
            return _problem(400, 50024, "Cannot execute action on this channel type")
        one = self._message(0, ME, body["message"] | {"files": body.get("files", {})})
        id = int(one["id"])
        one["channel_id"], self.messages[id] = str(id), [one]
        self.threads[id] = thread(id, FORUM, body["name"])
        if self.drop_answer:
            self.drop_answer -= 1
            return _problem(503, 0, "lost on the way")
        return self.threads[id] | {"message": one}

    def _active(self, request: web.Request, body: Json) -> Json:
        return {"threads": list(self.threads.values()), "members": []}

    def _edit_channel(self, request: web.Request, body: Json) -> Json:
        id = int(request.match_info["channel"])
        if body == {"archived": False}:
            self.archived.discard(id)
        return self.threads[id]

    def _reacted(self, request: web.Request, body: Json) -> list[Json]:
        kept = self.bursts if request.query.get("type") == "1" else self.reactions
        here = kept.get(int(request.match_info["message"]), {})
        return here.get(unquote(request.match_info["emoji"]), []) if "after" not in request.query else []

    def _callback(self, request: web.Request, body: Json) -> Any:
        token = request.match_info["token"]
        if token in self.callbacks:
            return _problem(400, 40060, "Interaction has already been acknowledged.")
        self.callbacks[token] = body
        about = {"id": request.match_info["id"], "type": body["type"], "response_message_loading": True}
        return {"interaction": about | {"response_message_id": str(self.id()), "response_message_ephemeral": True}}

    def _original(self, request: web.Request, body: Json) -> Any:
        token = request.match_info["token"]
        if token.startswith("expired"):
            return _problem(401, 50027, "Invalid Webhook Token")
        if token not in self.callbacks or token.startswith("dead"):
            return _problem(404, 10015, "Unknown Webhook")
        self.answers[token] = body
        return self._message(CHANNEL, ME, body)

    # Shapes

    def _message(self, channel: int, author: Json, body: Json) -> Json:
        id = self.id()
        at = self._clock() / 1000
        return {
            "id": str(id), "channel_id": str(channel), "author": author, "content": body.get("content") or "",
            "timestamp": _iso(at), "edited_timestamp": None, "tts": False, "mention_everyone": False,
            "mentions": body.get("mentions", []), "mention_roles": [], "attachments": [],
            "embeds": body.get("embeds") or [], "components": body.get("components") or [], "pinned": False,
            "type": body.get("type", 0), "flags": body.get("flags", 0), "files": body.get("files", {}),
            "allowed_mentions": body.get("allowed_mentions"),
        }  # fmt: skip

    def _slash(self, verb: str, options: Json) -> Json:
        kinds = {str: 3, int: 4}
        given = [{"name": name, "type": kinds[type(value)], "value": value} for name, value in options.items()]
        chosen = {"name": verb, "type": 1, "options": given}
        return {"id": "77", "name": "moss", "type": 1, "options": [chosen]}

    async def _interaction(self, who: int, kind: int, data: Json, channel: int, **more: Any) -> str:
        id = self.id()
        token = more.pop("token", f"token{id}")
        shape = KINDS.get(channel, 0)
        where = self.threads.get(channel) or {"id": str(channel), "type": shape, "name": "help", "position": 0}
        where = where | {"guild_id": str(GUILD), "permissions": "0"}
        member = {"user": user(who, f"user{who}"), "roles": [], "joined_at": _iso(0), "deaf": False, "mute": False}
        interaction = {
            "id": str(id), "application_id": str(APP), "type": kind, "token": token, "version": 1, "data": data,
            "guild_id": str(more.pop("guild", GUILD)), "channel": where, "channel_id": str(channel),
            "member": member | {"flags": 0, "permissions": "0"}, "entitlements": [], "attachment_size_limit": 1000,
            **more,
        }  # fmt: skip
        await self.tell("INTERACTION_CREATE", interaction)
        return token


def thread(id: int, channel: str | int, name: str = "a thread") -> Json:
    about = {"archived": False, "auto_archive_duration": 1440, "archive_timestamp": _iso(0), "locked": False}
    return {
        "id": str(id), "type": 11, "guild_id": str(GUILD), "parent_id": str(channel), "name": name,
        "owner_id": str(BOT), "message_count": 0, "member_count": 1, "rate_limit_per_user": 0, "thread_metadata": about,
    }  # fmt: skip


def _told(what: Any) -> str:
    """Of a file no more than its length."""
    return json.dumps(what, default=len)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def _problem(status: int, code: int, message: str) -> web.Response:
    said = json.dumps({"code": code, "message": message}).encode()
    return web.Response(status=status, body=said, headers={"Content-Type": "application/json"})
