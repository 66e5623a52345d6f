"""Whether the service can work with its database, and is not about to stop."""

from mmap import mmap

from sqlalchemy.exc import DBAPIError, TimeoutError

from progress_service.store import arrivals, database, revisions

_draining = mmap(-1, 1)  # which a process shares with those that it forks


def drain() -> None:
    """Let the service be not ready any more, in all of gunicorn's workers, while it goes on working."""
    _draining[0] = True


def is_draining() -> bool:
    """Tell whether the service is about to stop."""
    return bool(_draining[0])


def fault() -> str | None:
    """Return why the service should get no requests, or None if it can work."""
    if is_draining():
        return "The service is about to stop."
    try:
        found = database.probe(revisions.of)
    except (DBAPIError, TimeoutError):
        return "The database cannot be reached in time."
    if fault := revisions.fault(found, revisions.known()):
        return fault
    try:
        is_partly_restored = database.probe(arrivals.under_way)
        database.try_writing()
    except (DBAPIError, TimeoutError):
        return "The database cannot be written to."
    return "A dump is restored in part: run `flask progress restore` again." if is_partly_restored else None
