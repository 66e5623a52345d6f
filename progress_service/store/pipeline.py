"""Statements that travel to PostgreSQL together, since an update spends most of its time waiting for the database.

A connection keeps the statements that are queued. It sends them with the first whose rows are wanted, or with COMMIT,
in one message, and waits once (libpq's pipeline mode). Each is still a statement of its own, and sees what was
committed before it began. The server stops at the first that fails: those behind it, and COMMIT, are not done.

psycopg's own pipelines wait for the socket at each statement, and cost more CPU than they save. These use libpq, as
`psycopg.pq` offers it.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from select import POLLIN, POLLOUT, poll
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import _WaitTimeout, error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from progress_service import facts
from progress_service.facts import waiting

Row = tuple[Any, ...]
Result = TypeVar("Result")


class Silent(psycopg.OperationalError):
    """The server has said nothing for as long as its answer is waited for. It may have done what it was asked."""


class Travelling:
    """A statement on its way, with its parameters in order ($1, $2 …), and its result once it is back."""

    def __init__(self, sql: str, parameters: Sequence[Any] = (), arrive: Callable[[], object] = lambda: None) -> None:
        """Prepare to travel; `arrive` is called when the result is here."""
        self.sql, self.parameters, self.arrive = sql.encode(), parameters, arrive
        self.result: PGresult | None = None


class PipelinedConnection(psycopg.Connection[Row]):
    """A connection of psycopg with a queue. Call `send` before anything else is executed on it."""

    keeps_statements = False
    """Whether all statements reach one server, so that they can be prepared there."""
    notes_position = False
    """Whether to note where the server's log is after COMMIT."""
    patience: float | None = None
    """The most seconds to wait for an answer, since a server that is frozen never ends a connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._queued: list[Travelling] = []
        self._prepared_names: dict[bytes, bytes] = {}
        self._numbers = count()

    @waiting
    def wait(self, gen: PQGen[Result], *_: Any, **__: Any) -> Result:
        """Let psycopg wait for an answer, but no longer than `patience`."""
        try:
            return super().wait(gen, timeout=self.patience)
        except _WaitTimeout:
            self.close()
            raise Silent("the server does not answer") from None

    def queue(self, statement: Travelling) -> None:
        """Keep a statement until another one is waited for."""
        self._queued.append(statement)

    def rows(self, statement: Travelling) -> list[Row]:
        """Return the rows of a statement; send it and all that is queued if it has not been sent."""
        if statement.result is None:
            self.send()
        assert statement.result is not None
        reader = Transformer(self)
        reader.set_pgresult(statement.result)
        return reader.load_rows(0, statement.result.ntuples, tuple)

    def send(self) -> None:
        """Send what is queued, and wait for all of it. Raises the error of the first statement that fails."""
        statements, self._queued = self._queued, []
        if statements:
            self._travel(statements)
        for statement in statements:
            statement.arrive()

    def commit(self) -> None:
        """Commit, together with what is queued."""
        if not self._queued and not self.notes_position:
            return super().commit()
        self.queue(Travelling("COMMIT"))
        if not self.notes_position:
            return self.send()
        position = Travelling("SELECT pg_catalog.pg_current_wal_insert_lsn()")
        self.queue(position)
        self.send()
        assert position.result is not None
        if position.result.status == ExecStatus.TUPLES_OK:
            ((facts.current().spent.position,),) = self.rows(position)

    def rollback(self) -> None:
        """Forget what is queued, and roll back."""
        self._queued = []
        super().rollback()

    @waiting
    def _travel(self, statements: Sequence[Travelling]) -> None:
        server, writer = self.pgconn, Transformer(self)
        values = [writer.dump_sequence(one.parameters, [PyFormat.TEXT] * len(one.parameters)) for one in statements]
        sent: list[Travelling | bytes] = []  # in the place of statements that are prepared, their SQL
        try:
            server.enter_pipeline_mode()
            for statement, given in zip(statements, values, strict=True):
                sql = statement.sql
                if self.keeps_statements:
                    if sql not in self._prepared_names:
                        self._prepared_names[sql] = b"direct%d" % next(self._numbers)
                        server.send_prepare(self._prepared_names[sql], sql)
                        sent.append(sql)
                    server.send_query_prepared(self._prepared_names[sql], given)
                else:
                    server.send_query_params(sql, given)
                sent.append(statement)
            server.pipeline_sync()
            results = list(self._results())
        except BaseException:
            self.close()  # what the server still has to say is not known
            raise
        server.exit_pipeline_mode()
        for one, result in zip(sent, results, strict=True):
            if isinstance(one, Travelling):
                one.result = result
            elif result.status != ExecStatus.COMMAND_OK:
                del self._prepared_names[one]
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise error_from_result(result)
            if self.notes_position and result.command_status == b"COMMIT":
                return  # what fails after it undoes nothing

    def _results(self) -> Iterator[PGresult]:
        """Send everything, and yield the results up to the end of the pipeline."""
        server, socket = self.pgconn, poll()
        patience = None if self.patience is None else 1000 * self.patience

        def hear() -> None:
            if not socket.poll(patience):
                raise Silent("the server does not answer")
            server.consume_input()

        socket.register(server.socket, POLLIN | POLLOUT)
        while server.flush():
            hear()
        socket.modify(server.socket, POLLIN)
        while True:
            while server.is_busy():
                hear()
            result = server.get_result()
            if result and result.status == ExecStatus.PIPELINE_SYNC:
                return
            if result:
                yield result
