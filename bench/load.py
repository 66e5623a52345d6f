"""The load: clients that each send a request when the last one is answered, all in one thread of one process.

Requests are bytes made beforehand, and of an answer only its status and its length are read: the clients share the
machine with the service, and should take as little of it as they can.
"""

import os
import re
import select
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

from bench.serving import Service, cpu_seconds

PATIENCE_SECONDS = 60
HELLO = b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


class Load(NamedTuple):
    """The result, in seconds: latencies, and the CPU that the clients and others have used."""

    answers: int
    seconds: float
    p50: float
    p99: float
    cpu_seconds: dict[str, float]


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
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bytes | None:
        """Read the bytes that have arrived; return the answer once it is complete."""
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

    def ask(self, request: bytes) -> bytes:
        """Send a request and wait for its answer."""
        self.send(request)
        while (answer := self.receive()) is None:
            continue
        return answer


def connect(service: Service, concurrency: int) -> list[Client]:
    """Open connections, as many to each worker; raises Unexpected where they cannot be opened.

    If connections are opened at once, one worker may take nearly all, by chance. So while a worker takes its share, the
    others are stopped.
    """
    clients = []
    for nth, worker in enumerate(service.workers):
        others = [other for other in service.workers if other != worker]
        try:
            for other in others:
                os.kill(other, signal.SIGSTOP)
            for _ in range(nth, concurrency, len(service.workers)):
                clients.append(Client(service.port))
                clients[-1].ask(HELLO)
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)
    return clients


def drive(
    service: Service,
    requests: Sequence[bytes],
    concurrency: int,
    seconds: float,
    status: int,
    *,
    once: bool,
    watched: Mapping[str, int],
) -> Load:
    """Send requests in turn for some seconds, or until each is sent `once`, and measure the CPU of watched processes.

    Raises Unexpected for an answer with another status.
    """
    clients = connect(service, concurrency)
    poll = select.epoll()
    by_descriptor = {client.socket.fileno(): client for client in clients}
    waiting = iter(requests) if once else cycle(requests)
    expected = str(status).encode()
    latencies: list[float] = []
    cpu = {name: -cpu_seconds(pid) for name, pid in watched.items()} | {"loadCpu": -time.process_time()}
    start = now = time.perf_counter()
    sent = 0
    for client, request in zip(clients, waiting, strict=False):
        poll.register(client.socket, select.EPOLLIN)
        client.send(request)
        sent += 1
    while len(latencies) < sent:
        ready = poll.poll(PATIENCE_SECONDS)
        if not ready:
            raise Unexpected(f"no answer for {PATIENCE_SECONDS} s")
        for descriptor, _ in ready:
            client = by_descriptor[descriptor]
            answer = client.receive()
            if answer is None:
                continue
            now = time.perf_counter()
            latencies.append(now - client.sent_at)
            if answer[9:12] != expected:
                raise Unexpected(answer.decode())
            if now < start + seconds and (request := next(waiting, b"")):
                client.send(request)
                sent += 1
    cpu["loadCpu"] += time.process_time()
    for name, pid in watched.items():
        cpu[name] += cpu_seconds(pid)
    for client in clients:
        client.socket.close()
    poll.close()
    latencies.sort()
    p50, p99 = (latencies[int(share * len(latencies))] for share in (0.5, 0.99))
    return Load(len(latencies), now - start, p50, p99, cpu)


def answer_size(port: int, request: bytes) -> int:
    """Return how many bytes the body of an answer has."""
    client = Client(port)
    answer = client.ask(request)
    client.socket.close()
    return len(answer) - answer.index(b"\r\n\r\n") - 4
