"""Slack as a whole: every workspace is connected, kept connected, and left in order."""

import asyncio
import re
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request

from bot.adapters.missed import Standing, missed
from bot.adapters.sent import Sent
from bot.adapters.slack.app import bolt
from bot.adapters.slack.chat import SlackChat, Voice
from bot.adapters.slack.events import PLATFORM, Workspace, workspace_of
from bot.adapters.slack.socket import Socket
from bot.adapters.slack.web import Web
from bot.chat import AnyEvent, Health, Inbox
from bot.patience import rest
from bot.sections import Slack
from bot.settings import Settings
from core.model.errors import BadInput, MossError, Unavailable
from core.store.store import Store
from core.store.turns import Turn

log = structlog.get_logger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Before Slack is tried again: doubled from try to try."""
SHORT_LIFE_S = 5.0
"""A socket that ends sooner counts as a failed try."""
GRACE_S = 3.0
STOP_S = 4.0
"""What has arrived may take so long to be acknowledged at the end; what waits for Slack is left."""
AWAY_S = 60.0
"""After so long without a connection Slack may have given up to bring what happened."""
LOOKED_AT = 40
"""How many replies are looked at after that; each takes one call."""
STAMP = re.compile(r"[0-9]+\.[0-9]+")
"""The id of a message that was posted."""
PRUNE_EVERY_S = 86_400.0
ENDINGS_IN_ORDER = ("warning", "refresh_requested", "quiet")
"""The next socket is opened before the old one is closed, so that nothing falls between them."""


class SlackAdapter:
    def __init__(
        self,
        store: Store,
        settings: Settings,
        workspaces: Sequence[Slack],
        inbox: Inbox,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._store = store
        self._settings = settings
        self._inbox = inbox
        self._sent = Sent(store, PLATFORM)
        self._ending = asyncio.Event()
        self._first_pause_s = first_pause_s
        self.chat = SlackChat(self._sent)
        """How Moss speaks in it."""
        self.connections = tuple(Connection(self, one, first_pause_s) for one in workspaces)

    @property
    def store(self) -> Store:
        return self._store

    @property
    def ending(self) -> asyncio.Event:
        return self._ending

    @property
    def health(self) -> tuple[Health, ...]:
        return tuple(connection.health for connection in self.connections)

    @property
    def ports(self) -> tuple[int, ...]:
        """Where calls from Slack are taken."""
        return tuple(one.port for one in self.connections if one.port)

    def listen(self) -> None:
        """From here on Slack's calls wait, where a workspace is reached by them; `serve` answers them."""
        for connection in self.connections:
            connection.listen()

    async def serve(self) -> None:
        """Until `stop`."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(connection.keep()) for connection in self.connections]
            tasks.append(group.create_task(self._forget()))
            await self._ending.wait()
            _, late = await asyncio.wait(tasks, timeout=STOP_S)
            for task in late:
                task.cancel()

    def stop(self) -> None:
        self._ending.set()

    async def close(self) -> None:
        """Nothing is kept open between two calls."""

    async def take(self, event: AnyEvent) -> None:
        await self._inbox.take(event)

    def joined(self, voice: Voice) -> None:
        self.chat.join(voice)
        self.chat.expects_more = any(not connection.health.workspace for connection in self.connections)

    async def catch_up(self, team: str) -> None:
        """Complaints that came and went while nobody listened, and that Slack has ceased to bring: however often Slack
        is away meanwhile."""

        async def look(turn: Turn) -> Standing | None:
            return await self.chat.reactions(turn.place, turn.message) if STAMP.fullmatch(turn.message) else None

        session, pause_s = secrets.token_hex(4), self._first_pause_s
        while not self._ending.is_set():
            found = missed(self._store, self._settings, PLATFORM, {team}, look, session=session, limit=LOOKED_AT)
            try:
                async for events in found:
                    for event in events:
                        await self._inbox.take(event)
                return
            except MossError as problem:
                log.warning("reactions are compared later", team=team, why=problem.sentence)
            except Exception:
                log.exception("reactions are not compared", team=team)
                return
            await rest(self._ending, pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _forget(self) -> None:
        while not self._ending.is_set():
            try:
                await self._sent.prune()
            except MossError as problem:
                log.warning("notes of what was sent are not pruned", why=problem.sentence)
            await rest(self._ending, PRUNE_EVERY_S)


class Connection:
    """One workspace: known by its token, and reached by a socket or by calls."""

    def __init__(self, server: SlackAdapter, settings: Slack, first_pause_s: float) -> None:
        self._server = server
        self._settings = settings
        self._first_pause_s = first_pause_s
        self._web = Web.of(settings)
        self._listener: socket.socket | None = None
        self._by = "socket" if settings.app_token else "http"
        self.health = Health(platform=PLATFORM)
        self._workspace: Workspace | None = None
        self._app = bolt(settings, self._web, server.chat, self._installation, self._take, server.store.now)

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1] if self._listener else 0

    def listen(self) -> None:
        if self._settings.app_token is None:
            self._listener = _bound(self._settings.host, self._settings.port)

    async def keep(self) -> None:
        if self._settings.app_token is None:
            await self._keep_answering()
        else:
            await self._keep_listening(self._settings.app_token.get_secret_value())

    def _installation(self, body: Mapping[str, Any]) -> Workspace | None:
        """One app may be installed in several workspaces. What comes by a socket comes from Slack itself; whoever knows
        the secret of one app must not speak for the workspaces of another."""
        same = [one for one in self._server.connections if one._settings.signed_by == self._settings.signed_by]
        found = workspace_of(body, {one._workspace.team: one._workspace for one in same if one._workspace})
        if found is None and not all(one._workspace for one in same):
            raise Unavailable("Slack sent something before Moss knew its own workspaces; it comes again.")
        return found

    async def _take(self, event: AnyEvent) -> None:
        await self._server.take(event)
        self._note(last_event_at=self._server.store.now())

    # By a socket

    async def _keep_listening(self, app_token: str) -> None:
        ending, pause_s = self._server.ending, self._first_pause_s
        old: Socket | None = None
        catching_up: set[asyncio.Task[None]] = set()
        last = float("-inf")
        try:
            while not ending.is_set():
                try:
                    await self._introduce()
                    fresh = Socket(self._app, self._web, app_token, self._settings.ping_interval_s)
                    await fresh.open()
                except Exception as problem:
                    self._failed(problem, pause_s)
                    await rest(self._server.ending, pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                    continue
                if old is not None:
                    await old.finish()
                old, began = fresh, time.monotonic()
                self._connected()
                if began - last > AWAY_S:
                    for looking in catching_up:  # what it has seen already is out of date
                        looking.cancel()
                    looking = asyncio.create_task(self._server.catch_up(self.health.workspace))
                    catching_up.add(looking)
                    looking.add_done_callback(catching_up.discard)
                why = await self._watch(fresh)
                last = fresh.heard_at if why == "quiet" else time.monotonic()
                if ending.is_set():
                    break
                log.info("slack reconnects", team=self.health.workspace, why=why)
                self._note(reconnects=self.health.reconnects + 1)
                if why not in ENDINGS_IN_ORDER:
                    self._note(connected=False, problem=why)
                    await old.finish()
                    old = None
                if time.monotonic() - began < SHORT_LIFE_S:
                    await rest(self._server.ending, pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                else:
                    pause_s = self._first_pause_s
        finally:
            self._note(connected=False)
            for looking in catching_up:
                looking.cancel()
            if old is not None:
                await old.finish()

    async def _watch(self, open_: Socket) -> str:
        """Why it is over. One that is deaf gives signs of life and brings nothing, as in a quiet workspace: when
        nothing came for long, another one takes its place."""
        ending = asyncio.create_task(self._server.ending.wait())
        over = asyncio.create_task(open_.over.wait())
        try:
            while not (ending.done() or over.done()):
                left_s = open_.heard_at + self._settings.renew_after_s - time.monotonic()
                if left_s <= 0:
                    return "quiet"
                await asyncio.wait({ending, over}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            over.cancel()
        return open_.why

    # By calls

    async def _keep_answering(self) -> None:
        if self._listener is None or self._listener.fileno() < 0:  # it was closed when it ended before
            self._listener = _bound(self._settings.host, self._settings.port)
        calls = web.Application()
        calls.router.add_post(self._settings.path, self._answer)
        runner = web.AppRunner(calls, handle_signals=False, access_log=None, shutdown_timeout=GRACE_S)
        await runner.setup()
        try:
            await web.SockSite(runner, self._listener).start()
            await self._introduced()
            catching_up = asyncio.create_task(self._server.catch_up(self.health.workspace))
            await self._server.ending.wait()
            catching_up.cancel()
        finally:
            self._note(connected=False)
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        """Its signature is the first thing that is looked at, once it can be read at all."""
        try:
            call = await to_bolt_request(request)
        except (ValueError, LookupError, TypeError, AttributeError):  # of bytes, text and JSON that are none
            return web.Response(status=400)
        return await to_aiohttp_response(await self._app.async_dispatch(call))

    async def _introduced(self) -> None:
        pause_s = self._first_pause_s
        while not self._server.ending.is_set():
            try:
                await self._introduce()
                self._connected()
                return
            except Exception as problem:
                self._failed(problem, pause_s)
                await rest(self._server.ending, pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    # Both

    async def _introduce(self) -> None:
        """Learn who we are, once."""
        if self.health.workspace:
            return
        told = await self._web.call("auth.test")
        if not told.get("team_id") or not told.get("user_id"):
            raise Unavailable("Slack does not say whose token it is; it is tried again.")
        workspace = Workspace(
            team=str(told["team_id"]),
            bot_user=str(told["user_id"]),
            bot=str(told.get("bot_id") or ""),
            agent=self._settings.agent_user,
            url=str(told.get("url") or ""),
        )
        self._workspace = workspace
        self._note(workspace=workspace.team)
        self._server.joined(Voice(self._web, workspace, self._settings.history_per_minute))

    def _connected(self) -> None:
        self._note(connected=True, since=self._server.store.now(), problem="")
        log.info("slack is connected", team=self.health.workspace, by=self._by)

    def _note(self, **changes: Any) -> None:
        self.health = self.health.model_copy(update=changes)

    def _failed(self, problem: Exception, pause_s: float) -> None:
        """Never the problem's own words when they are not ours: they may hold a token or an address with one."""
        why = problem.sentence if isinstance(problem, MossError) else type(problem).__name__
        self._note(problem=why)
        log.warning("slack is away", team=self.health.workspace, why=why, pause_s=pause_s)


def _bound(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port))
    except OSError as problem:
        raise BadInput(
            f"Moss cannot listen for Slack on {host}:{port} ({problem.strerror or problem}); choose another `port` in "
            "[slack]."
        ) from None
    listener.setblocking(False)
    return listener
