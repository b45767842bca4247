"""The HTTP face, over a real port."""

import http.client
import json
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from desk.agent import Agent
from desk.model import Rules
from desk.records import Record
from desk.server import Requests, Server

from tests.test_tools import DATA


class Face(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.state = Path(directory.name)
        self.server = Server(("127.0.0.1", 0), Agent(DATA, Rules()), self.state, "boot-1")
        self.addCleanup(self.server.server_close)
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)
        quiet = mock.patch.object(Requests, "log_message")
        quiet.start()
        self.addCleanup(quiet.stop)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Record]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=5)
        self.addCleanup(connection.close)
        connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def ask(self, *texts: str, **more: str) -> str:
        roles = ["user", "assistant"] * len(texts)
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
        status, answer = self.call("POST", "/v1/chat/completions", {"messages": messages, **more})
        assert status == 200
        text: str = answer["choices"][0]["message"]["content"]
        return text

    def test_health_tells_which_start_this_is(self) -> None:
        assert self.call("GET", "/health") == (200, {"status": "ok", "boot_id": "boot-1"})

    def test_an_answer_carries_its_trace(self) -> None:
        body = {"messages": [{"role": "user", "content": "Is T-1044 late?"}]}
        _, answer = self.call("POST", "/v1/chat/completions", body)
        assert [call["name"] for call in answer["moss_trace"]] == ["tickets.search", "sla.check"]

    def test_a_conversation_that_is_sent_along_counts(self) -> None:
        assert "T-1047 of" in self.ask("Tell me about T-1047.", "It is open.", "Is it late?", user="one")

    def test_a_session_goes_on_where_it_was(self) -> None:
        self.ask("Tell me about T-1047.", user="two")
        assert "T-1047 of" in self.ask("Is it late?", user="two")
        assert "T-1047" not in self.ask("Is it late?", user="three")

    def test_a_session_is_named_by_header_too_and_never_leaves_its_directory(self) -> None:
        body = {"messages": [{"role": "user", "content": "hello"}]}
        self.call("POST", "/v1/chat/completions", body, **{"X-Session-Id": "../../elsewhere"})
        assert [path.parent.name for path in self.state.rglob("*.jsonl")] == ["sessions"]

    def test_a_session_file_has_a_line_for_each_message(self) -> None:
        self.ask("Is T-1044 late?", user="four")
        lines = (self.state / "sessions" / "four.jsonl").read_text().splitlines()
        assert [json.loads(line)["role"] for line in lines] == ["user", "assistant"]
        assert json.loads(lines[1])["tool_calls"][1]["name"] == "sla.check"

    def test_what_makes_no_sense_is_refused(self) -> None:
        said = [{"role": "user", "content": "hello"}]
        wrong: tuple[Any, ...] = (
            b"not json", [], {}, {"messages": []}, {"messages": "hello"}, {"messages": [7]},
            {"messages": [{"role": "assistant", "content": "hello"}]},
            {"messages": [{"role": "user", "content": 7}]}, {"messages": said, "stream": True},
        )  # fmt: skip
        for body in wrong:
            with self.subTest(body=body):
                assert self.call("POST", "/v1/chat/completions", body)[0] == 400
        assert self.call("GET", "/other")[0] == 404
