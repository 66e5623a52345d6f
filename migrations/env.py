"""How migrations run: online, on the application's own engine, one run at a time, and each run whole or not at all."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from alembic import context
from alembic.operations import MigrateOperation, Operations
from alembic.runtime.migration import MigrationInfo
from alembic.util import CommandError
from flask import current_app
from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InternalError, OperationalError

from progress_service.store import revisions
from progress_service.store.database import db

LOCK_SECONDS = 2
"""How long a step waits for a table, since everybody else who wants the table waits behind it."""
LOCK_NOT_AVAILABLE, DEADLOCK, QUERY_CANCELED = "55P03", "40P01", "57014"
MAY_LOSE = "lose-data"
TURN = "(hashtextextended('flask db', 0))"
# Of the transaction, so that it holds behind a pooler too.
SET_TIMEOUTS = text(
    "SELECT set_config('lock_timeout', :lock, true), set_config('statement_timeout', :statement, true),"
    " set_config('idle_in_transaction_session_timeout', :statement, true)"
)


@Operations.register_operation("loses")
class Loss(MigrateOperation):
    """What a step takes away for good: rows, as a statement names them behind its FROM, and what people call them."""

    def __init__(self, what: str, rows: str) -> None:
        self.what = what
        self.rows = rows

    @classmethod
    def loses(cls, operations: Operations, what: str, rows: str) -> None:
        """Say what the next statements take away for good."""
        operations.invoke(cls(what, rows))


@Operations.implementation_for(Loss)
def count(operations: Operations, loss: Loss) -> None:
    """Note what would be lost, where there is any of it."""
    found = operations.get_bind().execute(text(f"SELECT count(*) FROM {loss.rows}")).scalar()
    if found:
        operations.migration_context.opts["losses"].append(f"{found} {loss.what}")


def run(connection: Connection) -> None:
    """Do what the command asks for, in one transaction, and then say what has been done."""
    done: list[str] = []
    losses: list[str] = []
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
        on_version_apply=lambda step, **_: done.extend(describe(step)),
        losses=losses,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            wait_for_turn(connection)
        (revision,) = context.get_context().get_current_heads() or (None,)
        destination = context.get_context().opts.get("destination_rev")
        newest = revisions.newest(context.script.dir)
        if destination == "head" and (revision or "") > newest:
            if fault := revisions.fault(revision, newest):
                raise CommandError(fault)
            revision = f"{revision}, which is later than this version's {newest}"
        else:
            context.run_migrations()
        if losses and MAY_LOSE not in context.get_x_argument():
            raise CommandError(f"This would lose {', '.join(losses)}. To lose them, give `-x {MAY_LOSE}`.")
    if not done and isinstance(destination, str):
        done.append(f"Nothing to do: the database is at {revision or 'base'}.")
    for line in done:
        click.echo(line)


def describe(step: MigrationInfo) -> Iterator[str]:
    """Say what a step has done, if it has done more than to mark the database."""
    if not step.is_stamp:
        yield f"{step.up_revision.revision} {'applied' if step.is_upgrade else 'taken back'}: {step.up_revision.doc}"


def wait_for_turn(connection: Connection) -> None:
    """Let one run after another have the database to the end of its transaction, with the time that commands have."""
    connection.execute(SET_TIMEOUTS, {"lock": "0", "statement": "0"})
    if not connection.execute(text(f"SELECT pg_try_advisory_xact_lock{TURN}")).scalar():
        click.echo("Waiting for another run to end.")
        connection.execute(text(f"SELECT pg_advisory_xact_lock{TURN}"))
    patience = current_app.config["CATALOG_TIMEOUT"]
    connection.execute(SET_TIMEOUTS, {"lock": f"{LOCK_SECONDS}s", "statement": f"{patience}s"})


def run_when_tables_are_free(connection: Connection) -> None:
    """Run, and where others hold a table for long, let those who wait go first, and come back after a while."""
    deadline = time.monotonic() + current_app.config["CATALOG_TIMEOUT"]
    pause = 1
    while True:
        try:
            return run(connection)
        except OperationalError as error:
            if code(error) not in (LOCK_NOT_AVAILABLE, DEADLOCK) or time.monotonic() + pause > deadline:
                raise
        click.echo(f"A table is in use: trying again in {pause} s.")
        time.sleep(pause)
        pause *= 2


@contextmanager
def prepared_for_sqlite(connection: Connection) -> Iterator[None]:
    """Have a command's patience with other writers, and leave foreign keys unchecked.

    SQLite alters a table by making it anew, which others refer to meanwhile.
    """
    driver = connection.connection.cursor()
    (patience,) = driver.execute("PRAGMA busy_timeout").fetchone()
    driver.execute(f"PRAGMA busy_timeout = {1000 * current_app.config['CATALOG_TIMEOUT']}")
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys = ON")
        driver.execute(f"PRAGMA busy_timeout = {patience}")


def code(error: DBAPIError) -> str | None:
    """Return the SQLSTATE of PostgreSQL's errors."""
    return getattr(error.orig, "sqlstate", None)


def advice(error: DBAPIError) -> str:
    """Say in one line what the database says, and what to do about it."""
    says = str(error.orig).partition("\n")[0]
    if code(error) in (LOCK_NOT_AVAILABLE, DEADLOCK):
        return f"{says}: others hold a table for long, see pg_stat_activity. Nothing has changed: run it again later."
    if code(error) == QUERY_CANCELED:
        return f"{says}. Nothing has changed: give it more time, as PROGRESS_CATALOG_TIMEOUT, in seconds."
    return says


try:
    with db.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            with prepared_for_sqlite(connection):
                run(connection)
        else:
            run_when_tables_are_free(connection)
except (OperationalError, InternalError, DataError, IntegrityError) as error:
    raise CommandError(advice(error)) from error
