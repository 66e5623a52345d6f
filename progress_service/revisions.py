"""Which revisions of the schema this version can work with.

Revisions are numbered, so that a later one sorts behind. A migration first expands: the versions from before it work on
with what it makes. What no version needs any more is taken away later, by a migration whose name, and the names of all
after it, say which revision a version must know in order to do without: `0006_needs_0005`.
"""

from functools import cache

from alembic.script import ScriptDirectory


@cache
def newest(directory: str) -> str:
    """Return the newest revision that this version knows."""
    head = ScriptDirectory(directory).get_current_head()
    assert head is not None
    return head


def fault(revision: str | None, newest: str) -> str | None:
    """Say why a version that knows the newest revision cannot work with a database at this one; None where it can."""
    if revision is None:
        return "The database has no schema yet: run `flask db upgrade`."
    if revision < newest:
        return f"The schema is {revision} and this version needs {newest}: run `flask db upgrade`."
    if revision.partition("_needs_")[2] > newest.partition("_needs_")[0]:
        return f"The schema is {revision}, and this version is of {newest}: install a later one."
    return None
