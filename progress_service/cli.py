"""The `flask` commands."""

import gzip
import signal
import sys
import zlib
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext
from marshmallow import ValidationError
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, DBAPIError, TimeoutError

from progress_service import copying, importing
from progress_service.analytics import report
from progress_service.calculations import COMMAND, Update
from progress_service.catalog import queries
from progress_service.catalog.documents import PublishedModuleDocument
from progress_service.catalog.schemas import CatalogSchema, EnrollmentLineSchema
from progress_service.changes.delivering import Deliverer
from progress_service.copying import Piece
from progress_service.progress.schemas import OTHERS_UPDATE
from progress_service.store import arrivals, database, housekeeping, publishing, recorder, verification
from progress_service.store.learning import EnrollmentChange
from progress_service.store.publishing import ContentElsewhere, PublishedModule
from progress_service.store.verification import Drift, Verified
from progress_service.web.auth import Caller, Role, issue
from progress_service.web.openapi.document import describe
from progress_service.web.problems import Fault, details
from progress_service.web.serialization import encode
from progress_service.web.validation import faults_of, is_user_id, parse_json

REPAIR_CHUNK, PURGE_CHUNK = 1000, 1000
PURGED = {"answers": "stored answers", "sessions": "sessions", "changes": "changes"}
FILE = click.File("rb")


class Commands(AppGroup):
    """Commands that use the database, and end with one line if it or a file is away or refuses them."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:
            raise  # which click does not tell: the reader has read enough
        except (DatabaseError, TimeoutError, OSError) as error:
            message, *_ = str(getattr(error, "orig", error)).splitlines()
            raise click.ClickException(message) from error


catalog = Commands("catalog", help="The modules and their contents.")
progress = Commands("progress", help="The learners' progress.")


def register(app: Flask) -> None:
    """Add the commands to an application."""
    for command in (catalog, progress, token, print_openapi):
        app.cli.add_command(command)


@catalog.command("load")
@click.argument("file", type=FILE)
def load_catalog(file: BinaryIO) -> None:
    """Publish the modules of a JSON FILE, all or none; - is standard input."""
    try:
        document = parse_json(file.read().removeprefix(BOM_UTF8))
        is_module = isinstance(document, dict) and "contents" in document
        modules = CatalogSchema().load({"modules": [document]} if is_module else document)["modules"]
    except (ValueError, ValidationError) as error:
        faults = faults_of(error) if isinstance(error, ValidationError) else [Fault("", "Is not JSON.")]
        raise click.ClickException(_list(f"{file.name} is refused:", faults)) from error
    published = [PublishedModule(**module) for module in sorted(modules, key=lambda module: module["id"])]
    now = datetime.now(UTC)

    work = partial(publishing.publish_all, modules=published, now=now, by=COMMAND)
    try:
        database.write(work)
    except ContentElsewhere as refused:
        (contents,) = (module.contents for module in published if module.id == refused.module_id)
        faults = [Fault(contents[place].id, detail) for place, detail in details(refused)]
        raise click.ClickException(_list(f"Module {refused.module_id} is refused:", faults)) from refused
    click.echo(f"{len(published)} modules, {sum(len(module.contents) for module in published)} contents published.")


@catalog.command("dump")
@click.argument("file", type=click.File("wb"), default="-")
def dump_catalog(file: BinaryIO) -> None:
    """Write all modules to a FILE, or to standard output, in the form that `catalog load` reads."""

    def chunks(connection: Connection) -> Iterator[bytes]:
        yield b'{"modules": ['
        for number, module in enumerate(queries.catalog(connection)):
            yield (b",\n" if number else b"\n") + encode(PublishedModuleDocument.of(module))
        yield b"\n]}\n"

    read, end = database.read_on(chunks)
    file.writelines(read)
    end()


@progress.command("import")
@click.option("--enrollments", type=FILE, help="A file with enrollments; - is standard input.")
@click.option("--updates", type=FILE, help="A file with updates.")
@click.option("--complete", is_flag=True, help="The last line is complete, although it has no line end.")
def import_file(enrollments: BinaryIO | None, updates: BinaryIO | None, complete: bool) -> None:
    """Import a file or pipe, CSV or JSON, plain or gzip; lines that were imported before add nothing."""
    if enrollments and not updates:
        file, kind = enrollments, ENROLLMENTS
    elif updates and not enrollments:
        file, kind = updates, UPDATES
    else:
        raise click.UsageError("Give either --enrollments or --updates.")
    stored = 0
    try:
        source = importing.Source(file, kind, complete=complete)
        chunks = importing.run(source, datetime.now(UTC))
        label, is_endless = Path(file.name).name, source.size is None
        with click.progressbar(chunks, source.size, label, show_pos=is_endless, file=sys.stderr) as bar:
            for added in chunks:
                bar.update(source.position - bar.pos)
                stored += added
    except importing.BadLines as bad:
        faults = [Fault(f"line {line} {fault.pointer}".rstrip(), fault.detail) for line, fault in bad.faults]
        raise click.ClickException(
            _list(f"{stored} {kind.name} stored; nothing of the chunk with these lines is:", faults)
        ) from bad
    except (OSError, EOFError, zlib.error) as error:
        raise click.ClickException(f"{file.name} cannot be read: {error}") from error
    if source.left:
        left = f"Line {source.left} has no line end, and may be half a line. It is left for the next run"
        click.echo(f"{left}; --complete takes it as it is.", err=True)
    click.echo(f"{stored} {kind.name} stored.")


@progress.command("dump")
@click.argument("name", type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE")
def dump(name: str) -> None:
    """Write all that there is to a FILE, from one snapshot, for `restore`; .gz compresses, - is standard output."""

    def begin(connection: Connection) -> tuple[int, Iterator[Piece]]:
        rows = copying.count(connection)
        return sum(rows.values()), copying.dump(connection, rows, datetime.now(UTC))

    try:
        (rows, pieces), end = database.read_on(begin)
    except copying.Refused as refused:
        raise click.ClickException(str(refused)) from refused
    with ExitStack() as opened:
        file: Any = opened.enter_context(click.open_file(name, "wb"))
        if name.endswith(".gz"):
            file = opened.enter_context(gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1))
        bar = opened.enter_context(click.progressbar(length=rows, label="dump", file=sys.stderr))
        for piece in pieces:
            file.write(piece.text)
            bar.update(piece.rows)
    end()
    click.echo(f"{rows} rows dumped.", err=True)


@progress.command("restore")
@click.argument("file", type=FILE)
def restore(file: BinaryIO) -> None:
    """Restore what `dump` has written, from a FILE or pipe, into an empty database; go on if it was interrupted."""
    try:
        with (
            closing(copying.Restoration(file)) as restoration,
            click.progressbar(length=restoration.rows, label="restore", file=sys.stderr) as bar,
        ):
            for passed in restoration.run():
                bar.update(passed)
    except copying.Refused as refused:
        raise click.ClickException(str(refused)) from refused
    click.echo(f"{restoration.rows} rows restored.")
    _verify(repair=False)


@progress.command("settle")
def settle() -> None:
    """Let the feed of changes go on in a database that was brought here from elsewhere, or back to an earlier time."""
    database.write(arrivals.settle)
    click.echo("What is written from now on comes after all changes so far.")


@progress.command("verify")
@click.option("--repair", is_flag=True, help="Store the recounted figures.")
def verify(repair: bool) -> None:
    """Recount every total and statistic; exit with 1 if a stored figure differs, even if it is repaired."""
    _verify(repair=repair)


def _verify(*, repair: bool) -> None:
    def work(connection: Connection) -> int:
        found = 0
        for module_id, drifts in groupby(verification.drifts(connection), key=attrgetter("module_id")):
            while chunk := list(islice(drifts, REPAIR_CHUNK)):
                found += len(chunk)
                for drift in chunk:
                    click.echo(_describe(drift))
                if repair:
                    now = datetime.now(UTC)
                    database.write(partial(verification.repair, module_id=module_id, drifts=chunk, now=now))
            if repair:
                database.write(partial(verification.repair_tallies, module_id=module_id))
        return found

    now = datetime.now(UTC)
    found = database.read(work)
    click.echo(f"{found} figures differ from their recount{' and are repaired' if found and repair else ''}.")
    try:
        database.write(partial(verification.note, verified=Verified(now, found)))
    except DBAPIError as error:  # a replica can be verified too
        click.echo(
            f"The metrics are not told of this, since it cannot be stored: {type(error.orig).__name__}", err=True
        )
    sys.exit(bool(found))


@progress.command("purge")
def purge() -> None:
    """Delete what is kept for some time only, and has been: stored answers, sessions, changes that are no history."""
    now, deleted = datetime.now(UTC), Counter[str]()
    while any(step := database.write(partial(housekeeping.purge, now=now, most=PURGE_CHUNK))):
        deleted.update(step._asdict())
    kinds = (f"{deleted[kind]} {words}" for kind, words in PURGED.items())
    click.echo(f"{', '.join(kinds)} deleted.")


@progress.command("report")
@click.argument("module_id")
@click.option("--stalled-days", default=7, show_default=True, type=click.IntRange(1, 365))
def print_report(module_id: str, stalled_days: int) -> None:
    """Print the report of a module, a page in HTML."""
    now = datetime.now(UTC)
    found = database.read(partial(report.find, module_id=module_id, now=now, stalled_days=stalled_days))
    if found is None:
        raise click.ClickException(f"There is no module {module_id}.")
    click.echo(report.written(found).encode(), nl=False)


@progress.command("deliver")
@click.option("--once", is_flag=True, help="Stop when nothing is left that can be sent now.")
def deliver(once: bool) -> None:
    """Send changes to the webhooks, until TERM or INT; several may run at once."""
    deliverer = Deliverer(current_app._get_current_object())  # type: ignore[attr-defined]
    former = {number: signal.signal(number, lambda *_: deliverer.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        deliverer.run(once=once)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


progress.add_command(click.Command("purge-keys", callback=purge.callback, hidden=True))  # its former name


@click.command("openapi")
@with_appcontext
def print_openapi() -> None:
    """Print the OpenAPI document."""
    click.echo(msgspec.json.format(encode(describe(current_app)), indent=2))


@click.command()
@click.option("--sub", required=True, help="The caller: an identifier of a user or a service.")
@click.option("--role", required=True, type=click.Choice([role.value for role in Role]))
@click.option("--expires", default=3600, show_default=True, type=click.IntRange(min=1), help="Lifetime in seconds.")
@with_appcontext
def token(sub: str, role: str, expires: int) -> None:
    """Print a token signed with the development key."""
    if not is_user_id(sub):
        raise click.BadParameter("is not an identifier of a user.", param_hint="--sub")
    if not current_app.config.get("JWT_SECRET_KEY"):
        raise click.ClickException("Tokens can be made with PROGRESS_JWT_SECRET_KEY only.")
    click.echo(issue(Caller(sub, Role(role)), timedelta(seconds=expires)))


def _store_updates(connection: Connection, lines: Sequence[dict[str, Any]], now: datetime) -> None:
    updates = [Update(**{"occurred_at": now, **line}) for line in lines]
    recorder.record(
        connection,
        updates,
        auto_enroll=current_app.config["AUTO_ENROLL"],
        session_days=current_app.config["SESSION_DAYS"],
        now=now,
    )


def _store_enrollments(connection: Connection, lines: Sequence[dict[str, Any]], now: datetime) -> None:
    recorder.enroll(connection, [EnrollmentChange(**{"told_at": now, **line}) for line in lines], now=now, by=COMMAND)


UPDATES = importing.Kind("updates", OTHERS_UPDATE, _store_updates)
ENROLLMENTS = importing.Kind("enrollments", EnrollmentLineSchema(), _store_enrollments)


def _describe(drift: Drift) -> str:
    learner = f" learner {drift.user_id}" if drift.user_id else ""
    return f"module {drift.module_id}{learner}: {drift.figure} is {drift.stored}, recounted {drift.recounted}"


def _list(title: str, faults: Sequence[Fault]) -> str:
    return "\n".join([title, *(f"  {fault.pointer}: {fault.detail}" for fault in faults)])
