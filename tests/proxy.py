"""A TCP proxy before a PostgreSQL: it counts round trips, and may put the database at a distance."""

import socket
import time
from contextlib import suppress
from threading import Thread
from typing import Self

from sqlalchemy import make_url


class Proxy:
    """Passes on the bytes of clients and server, each piece after some seconds, on a port of the loopback address."""

    def __init__(self, url: str, seconds: float = 0.0) -> None:
        """Prepare to serve the database of a URL; each way takes so many seconds more."""
        self._behind, self._seconds = make_url(url), seconds
        self.trips = 0
        """How often clients have sent something after they had received something, or for the first time."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [Thread(target=self._accept)]
        self._sockets = [self._listener]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            _end(one)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    @property
    def url(self) -> str:
        """The URL of the same database through the proxy."""
        port = self._listener.getsockname()[1]
        url = self._behind.difference_update_query(["host", "port"]).set(host="127.0.0.1", port=port)
        return url.render_as_string(hide_password=False)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # the proxy ends
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = self._connect()
            self._sockets += [client, server]
            last = [server]  # who has spoken last
            for source, target in ((client, server), (server, client)):
                thread = Thread(target=self._pass_on, args=(source, target, client, last))
                self._threads.append(thread)
                thread.start()

    def _connect(self) -> socket.socket:
        url = self._behind
        port = url.query.get("port", url.port or 5432)
        if url.host:
            return socket.create_connection((url.host, int(str(port))))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{url.query['host']}/.s.PGSQL.{port}")
        return server

    def _pass_on(
        self, source: socket.socket, target: socket.socket, client: socket.socket, last: list[socket.socket]
    ) -> None:
        with suppress(OSError):  # when one of the two has gone
            while piece := source.recv(1 << 20):
                if source is client and last[0] is not client:
                    self.trips += 1
                last[0] = source
                time.sleep(self._seconds)
                target.sendall(piece)
        _end(source)
        _end(target)


def _end(one: socket.socket) -> None:
    with suppress(OSError):  # when it has ended already
        one.shutdown(socket.SHUT_RDWR)
