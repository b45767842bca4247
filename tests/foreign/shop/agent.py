"""A shop's agent, which knows nothing of Moss: prices over the chat completions API."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PRICES = {"apple": 2, "pear": 3, "plum": 5, "quince": 8}


def answer(message):
    named = [word.strip(".,?!") for word in message.lower().split()]
    goods = [word for word in named if word in PRICES]
    if not goods:
        return "I know apples, pears, plums and quinces."
    return f"{goods[0]}: {PRICES[goods[0]]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply({"well": True})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = answer(asked["messages"][-1]["content"])
        self.reply({"choices": [{"message": {"role": "assistant", "content": content}}]})

    def reply(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
