"""What is noted of a request while it is answered; the log and the metrics tell it afterwards."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Facts:
    """What is known of a request so far. What is empty is unknown, or was not so."""

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
