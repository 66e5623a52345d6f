"""A program on loopback that is told of changes, and notes what it is told."""

import json
import ssl
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Message:
    """A request that was received."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path, self.headers, self.body = path, headers, body

    @property
    def event(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


Answer = Callable[[Message, BaseHTTPRequestHandler], int | None]


class Receiver:
    """Notes messages by path, and answers each with a status; an answer of None is the function's own."""

    def __init__(self) -> None:
        self.messages: defaultdict[str, list[Message]] = defaultdict(list)
        self.answers: dict[str, Answer] = {}
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ids(self, path: str) -> list[str]:
        """Return the ids of what a path was told, in order."""
        return [message.id for message in list(self.messages[path])]


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Receive on a free port, with TLS if a context is given."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            message = Message(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            receiver.messages[self.path].append(message)
            answer = receiver.answers.get(self.path)
            status = answer(message, self) if answer else 204
            if status is not None:
                self.send_response(status)
                self.send_header("Location", f"{receiver.url}/elsewhere")
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Senders hang up as they like."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        receiver.port = server.server_port
        thread = Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
