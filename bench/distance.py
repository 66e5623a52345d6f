"""The database at a distance: a proxy, in a process of its own, delays what goes to the database and comes back."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from tests.proxy import Proxy


@contextmanager
def distant(url: str, seconds: float) -> Iterator[str]:
    """Yield a URL of the same database, to which a round trip takes so many seconds more."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=_serve, args=(far, url, seconds / 2))
    process.start()
    try:
        yield near.recv()
    finally:
        near.send("the end")
        process.join()


def _serve(parent: Connection, url: str, seconds: float) -> None:
    with Proxy(url, seconds) as proxy:
        parent.send(proxy.url)
        parent.recv()
