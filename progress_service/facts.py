"""What is noted of a request while it is answered; the log and the metrics tell it afterwards."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import ParamSpec, TypeVar

from progress_service import figures

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(slots=True)
class Spent:
    """What a request has cost the database."""

    statements: int = 0
    """How many statements were sent, with those that begin transactions, and without COMMIT."""
    seconds: float = 0.0
    """How long a thread waited for the database."""
    retries: Counter[str] = field(default_factory=Counter)
    """How often a transaction was tried again, by the type of the exception that was the cause."""
    group: int = 0
    """How many requests shared the transaction; 0 if it was of a kind that shares none."""
    position: str = ""
    """Where the log of PostgreSQL (WAL) was after the latest COMMIT, if replicas are read."""

    def add(self, other: "Spent") -> None:
        """Add what this request and others have cost together."""
        self.statements += other.statements
        self.seconds += other.seconds
        self.retries += other.retries
        self.group = other.group
        self.position = other.position


@dataclass(slots=True)
class Facts:
    """What is known of a request so far. An empty field is not known, or not so."""

    request_id: str = ""
    trace_id: str = ""
    """The trace of the caller, as W3C's `traceparent` names it."""
    parent_id: str = ""
    """The caller's part of the trace."""
    began: float = 0.0
    """When the request came, by `time.perf_counter`."""
    role: str = ""
    """The role of the caller, if the token was accepted."""
    problem: str = ""
    """The slug of the problem that is the answer."""
    cause: str = ""
    """The type of the exception that led to the problem."""
    is_from_replica: bool = False
    """Whether a replica was read, and not the primary."""
    spent: Spent = field(default_factory=Spent)
    """What it has cost the database, together with those that shared its transaction."""


_NOBODYS = Facts()
"""What is noted outside of requests, where nobody reads it."""
_facts = ContextVar("facts", default=_NOBODYS)

current = _facts.get
"""Return the facts of the request that this thread answers; outside of requests, of none."""


def begin(facts: Facts) -> None:
    """Begin to note the facts of a request."""
    _facts.set(facts)


def end() -> None:
    """Leave the request."""
    _facts.set(_NOBODYS)


def waiting(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Note the time that a function takes as time in which the database is waited for."""

    @wraps(function)
    def timed(*args: Parameters.args, **options: Parameters.kwargs) -> Result:
        spent = current().spent
        waited, began = spent.seconds, time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            spent.seconds = waited + time.perf_counter() - began  # with what functions within it have noted

    return timed


def note_retry(error: Exception) -> str:
    """Note that a transaction is tried again, and return the type of the exception that is the cause."""
    cause = type(error.__cause__ or error).__name__
    figures.own().retries.labels(cause).inc()
    current().spent.retries[cause] += 1
    return cause


@contextmanager
def apart() -> Iterator[Spent]:
    """Note what the database is asked for apart from the request, since it is for others too."""
    known = current()
    own, known.spent = known.spent, Spent()
    try:
        yield known.spent
    finally:
        known.spent = own
