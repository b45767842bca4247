"""The HTTP face: the chat completions API, as far as the desk needs it, and /health."""

import json
import socketserver
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from desk.agent import Agent
from desk.heartbeat import Heartbeat
from desk.records import Message, Record
from desk.sessions import Sessions

BODY_LIMIT_BYTES = 1_000_000


class BadRequest(Exception):
    pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], agent: Agent, state: Path, boot_id: str) -> None:
        super().__init__(address, Requests)
        self.agent = agent
        self.sessions = Sessions(state / "sessions")
        self.boot_id = boot_id
        self._heartbeat = Heartbeat(state / "heartbeat.json", boot_id)

    def service_actions(self) -> None:
        self._heartbeat.beat()

    def server_bind(self) -> None:
        # HTTPServer asks the resolver for its own name here, which can take seconds where there is no network.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(200, {"status": "ok", "boot_id": self.server.boot_id})
        else:
            self._answer(404, {"error": {"message": f"nothing is at {self.path}"}})

    def do_POST(self) -> None:
        try:
            if self.path != "/v1/chat/completions":
                self.close_connection = True
                self._answer(404, {"error": {"message": f"nothing is at {self.path}"}})
                return
            self._answer(200, self._complete(self._body()))
        except BadRequest as problem:
            self.close_connection = True
            self._answer(400, {"error": {"message": str(problem)}})
        except BrokenPipeError:
            self.close_connection = True

    def _complete(self, body: Record) -> Record:
        conversation = _conversation(body.get("messages"))
        if body.get("stream"):
            raise BadRequest("streaming is not offered")
        session = str(body.get("user") or self.headers.get("X-Session-Id") or "default")
        if len(conversation) == 1:
            conversation = [*self.server.sessions.history(session), *conversation]
        turn = self.server.agent.answer(conversation)
        self.server.sessions.add(session, conversation[-1]["content"], turn.text, turn.trace)
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "model": str(body.get("model", "desk")),
            "choices": [{"index": 0, "message": {"role": "assistant", "content": turn.text}, "finish_reason": "stop"}],
            "moss_trace": turn.trace,
        }

    def _body(self) -> Record:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > BODY_LIMIT_BYTES:
            raise BadRequest(f"a body of at most {BODY_LIMIT_BYTES} bytes with its Content-Length is needed")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise BadRequest("the body is not JSON") from error
        if not isinstance(body, dict):
            raise BadRequest("the body is not a JSON object")
        return body

    def _answer(self, status: int, content: Record) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        if self.path != "/health":
            super().log_message(format, *args)


def _conversation(messages: object) -> list[Message]:
    """What users and the desk said; other roles are the caller's own and do not reach the model."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadRequest("messages must be a list of objects")
    said = [message for message in messages if message.get("role") in ("user", "assistant")]
    if not said or said[-1]["role"] != "user" or not all(isinstance(m.get("content"), str) for m in said):
        raise BadRequest("messages must be texts, and the last one the user's")
    return [{"role": message["role"], "content": message["content"]} for message in said]
