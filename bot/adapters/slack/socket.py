"""One socket to Slack, for one life. Whoever opened it opens the next one: see `bot/adapters/slack/adapter.py`.

The library's own client would come back by itself, but with one and the same address, without a growing pause, and only
after the old socket is closed. So of it Moss takes the protocol, and not the coming back.
"""

import asyncio
import contextlib
import time
from typing import Any

from aiohttp import WSMsgType
from slack_bolt.adapter.socket_mode.async_internals import run_async_bolt_app, send_async_response
from slack_bolt.async_app import AsyncApp
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest

from bot.adapters.slack.web import QUIET, Web

CONNECT_S = 20.0
"""Until Slack says hello."""
FINISH_S = 3.0
"""How long what has arrived may take until it is acknowledged, once the socket is given up."""
CLOSE_S = 2.0


class Socket(SocketModeClient):
    def __init__(self, app: AsyncApp, web: Web, app_token: str, ping_interval_s: float) -> None:
        super().__init__(
            app_token=app_token,
            logger=QUIET,
            web_client=web.client,
            auto_reconnect_enabled=False,
            ping_interval=ping_interval_s,
        )
        self.over = asyncio.Event()
        """It ended, or Slack asks for another one."""
        self.why = ""
        self.heard_at = time.monotonic()
        """When the last delivery came."""
        self._app = app
        self._greeted = asyncio.Event()
        self._at_work: set[asyncio.Task[Any]] = set()
        self.socket_mode_request_listeners.append(self._deliver)

    async def open(self) -> None:
        """Raises what the network or Slack raise; then the socket is closed."""
        try:
            async with asyncio.timeout(CONNECT_S):
                self.wss_uri = await self.issue_new_wss_url()
                await self.connect()  # type: ignore[no-untyped-call]
                await self._greeted.wait()
        except BaseException:
            await self.shut()
            raise

    async def finish(self) -> None:
        """What has arrived is still acknowledged; then it is closed."""
        if self._at_work:
            await asyncio.wait(set(self._at_work), timeout=FINISH_S)
        await self.shut()

    async def shut(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_S):
                await self.close()  # type: ignore[no-untyped-call]
        for task in (self.message_processor, self.current_session_monitor, self.message_receiver):
            if task is not None:
                task.cancel()
        await self.aiohttp_client_session.close()

    async def connect_to_new_endpoint(self, force: bool = False) -> None:
        self.over.set()

    async def receive_messages(self) -> None:
        session = self.current_session
        assert session is not None
        try:
            async for message in session:
                if message.type is WSMsgType.TEXT:
                    await self.enqueue_message(message.data)
                elif message.type is WSMsgType.PING:
                    await session.pong(message.data)
                elif message.type is WSMsgType.PONG:
                    self.last_ping_pong_time = _sent_at(message.data) or self.last_ping_pong_time
                elif message.type is WSMsgType.ERROR:
                    break
        finally:
            self.why = self.why or "the connection ended"
            self.over.set()

    async def run_message_listeners(self, message: dict[str, Any], raw_message: str) -> None:
        match message.get("type"):
            case "hello":
                self._greeted.set()
            case "disconnect":
                self.why = str(message.get("reason", ""))[:80] or "disconnect"
                self.over.set()
            case _:
                task = asyncio.current_task()
                assert task is not None
                self._at_work.add(task)
                task.add_done_callback(self._at_work.discard)
                await super().run_message_listeners(message, raw_message)

    async def _deliver(self, client: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        self.heard_at = time.monotonic()
        answer = await run_async_bolt_app(self._app, request)
        await send_async_response(client, request, answer, 0.0)


def _sent_at(pong: bytes | None) -> float | None:
    try:
        return float((pong or b"").decode().rpartition(":")[2])
    except ValueError:
        return None
