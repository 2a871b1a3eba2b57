"""A sample API instance: items that may be cached, a stream of events, a question that is answered slowly. Nothing but Python."""

import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = os.environ.get("NAME", "instance")


class Instance(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/ready":
            self.answer(b"ready\n", cache="no-store")
        elif self.path.startswith("/items/"):
            time.sleep(0.05)
            item = self.path.removeprefix("/items/")
            self.answer(f"item {item}, made by {NAME}\n".encode(), tags=f"item-{item}, items")
        elif self.path.startswith("/stream"):
            self.stream()
        else:
            self.answer(f"nothing here, says {NAME}\n".encode(), status=404, cache="max-age=5")

    def do_POST(self):
        question = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(0.5)
        answer = {"answer": f"{len(question)} bytes were asked", "by": NAME}
        self.answer(json.dumps(answer).encode(), kind="application/json", tags="answers")

    def answer(self, content, status=200, cache="max-age=60", tags=None, kind="text/plain; charset=utf-8"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", cache)
        if tags:
            self.send_header("Cache-Tag", tags)
        self.end_headers()
        self.wfile.write(content)

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "max-age=60")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(20):
            self.chunk(f"data: word {number} of {NAME}\n\n".encode())
            time.sleep(0.2)
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def chunk(self, content):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", 8000), Instance).serve_forever()
