"""How tests wait for what other threads, processes and servers do."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_SECONDS = 60
"""After which a test fails: many times what a busy machine needs for anything that a test waits for."""

Found = TypeVar("Found")


def wait_until(happened: Callable[[], Found], instead: Callable[[], object] = str) -> Found:
    """Call a function until it returns something true, and return that; say what is so `instead` if it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := happened()):
        assert time.monotonic() < deadline, f"This has not happened for {PATIENCE_SECONDS} s. {instead()}".rstrip()
        time.sleep(0.01)
    return found
