"""The load: clients that each send a request when the last one is answered, all in one thread of one process.

Requests are bytes made beforehand, and of an answer only its status and its length are read: the clients share the
machine with what they measure, and should take as little of it as they can.
"""

import re
import select
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

PATIENCE_SECONDS = 60
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


class Load(NamedTuple):
    """What came of it; latencies in seconds, and the CPU that the clients themselves have used."""

    answers: int
    seconds: float
    p50: float
    p99: float
    cpu_seconds: float


class Unexpected(Exception):
    """An answer has another status than those expected; holds it."""


class Client:
    """A connection that stays open, with at most one request on its way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._expected = 0

    def send(self, request: bytes) -> None:
        self._received, self._expected = b"", 0
        self.socket.sendall(request)
        self.sent_at = time.perf_counter()

    def receive(self) -> bytes | None:
        """Read what has come; return the whole answer, once it is there."""
        part = self.socket.recv(1 << 18)
        if not part:
            raise Unexpected("the connection was closed")
        self._received += part
        if not self._expected and (end := self._received.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self._received, 0, end)
            if not length:
                raise Unexpected(self._received.decode())
            self._expected = end + 4 + int(length[1])
        return self._received if 0 < self._expected <= len(self._received) else None


def drive(
    port: int, requests: Sequence[bytes], concurrency: int, seconds: float, status: int, *, once: bool = False
) -> Load:
    """Send the requests in turn for so long, or until each is sent `once`; raises Unexpected for another status."""
    clients = [Client(port) for _ in range(concurrency)]
    expected = str(status).encode()
    limit = len(requests) if once else 1 << 62
    latencies: list[float] = []
    poll = select.epoll()
    cpu, start = time.process_time(), time.perf_counter()
    deadline, sent = start + seconds, 0
    by_socket = {}
    for client in clients[:limit]:
        poll.register(client.socket, select.EPOLLIN)
        by_socket[client.socket.fileno()] = client
        client.send(requests[sent % len(requests)])
        sent += 1
    now = start
    while len(latencies) < sent:
        ready = poll.poll(PATIENCE_SECONDS)
        if not ready:
            raise Unexpected(f"no answer for {PATIENCE_SECONDS} s")
        for descriptor, _ in ready:
            client = by_socket[descriptor]
            answer = client.receive()
            if answer is None:
                continue
            now = time.perf_counter()
            latencies.append(now - client.sent_at)
            if answer[9:12] != expected:
                raise Unexpected(answer.decode())
            if now < deadline and sent < limit:
                client.send(requests[sent % len(requests)])
                sent += 1
    cpu = time.process_time() - cpu
    for client in clients:
        client.socket.close()
    poll.close()
    latencies.sort()
    p50, p99 = (latencies[int(share * len(latencies))] for share in (0.5, 0.99))
    return Load(len(latencies), now - start, p50, p99, cpu)


def answer_size(port: int, request: bytes) -> int:
    """Return how many bytes the body of an answer has."""
    client = Client(port)
    client.send(request)
    while (answer := client.receive()) is None:
        continue
    client.socket.close()
    return len(answer) - answer.index(b"\r\n\r\n") - 4
