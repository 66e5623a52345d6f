"""`flask progress import`: files of updates and enrollments, of which every line counts exactly once."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import event, update

from progress_service import cli, importing
from progress_service.extensions import db
from progress_service.models import ImportedChunk
from tests.callers import Caller
from tests.conftest import Callers, Listen, Publish, application, stored
from tests.progress import instant, moment, send

REFUSED, MISUSED = 1, 2
BOM = b"\xef\xbb\xbf"
CHUNK_LINES = 2

# Each line adds another power of two, so that a total tells which lines have been counted, and how often.
HEADER = "userId,contentId,timeSpentSeconds"
SECONDS = [1, 2, 4, 8, 16, 32]
TABLE = [HEADER, *(f"sam,intro,{seconds}" for seconds in SECONDS)]
OBJECTS = [f'{{"userId": "sam", "contentId": "intro", "timeSpentSeconds": {seconds}}}' for seconds in SECONDS]
WHOLE_CHUNKS = [0, 1 + 2, 1 + 2 + 4 + 8, sum(SECONDS)]

Import = Callable[..., Result]
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _catalog(publish: Publish, student: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with a quiz, and a second module and learner as noise; chunks are small."""
    publish("algebra", ["intro", {"id": "quiz", "passingScore": 50}])
    publish("biology", ["cells"])
    send(student("nora"), "intro", progressPercentage=70, timeSpentSeconds=7000)
    monkeypatch.setattr(importing, "CHUNK_LINES", CHUNK_LINES)


@pytest.fixture
def imported(app: Flask) -> Import:
    return lambda file, kind="--updates": app.test_cli_runner().invoke(args=["progress", "import", kind, str(file)])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of bytes or of lines, each with its end."""

    def write(content: bytes | list[str], name: str = "updates.csv") -> Path:
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else lines(content))
        return file

    return write


def lines(content: list[str], end: str = "\n") -> bytes:
    return "".join(line + end for line in content).encode()


def seconds(caller: Caller, learner: str = "sam") -> int:
    """Return a learner's time, which their records and their enrollments agree on."""
    dashboard = caller.get(f"/api/progress/{learner}").get_json()
    contents = [
        content
        for enrollment in dashboard["modules"]
        for content in caller.get(f"/api/progress/{learner}/{enrollment['moduleId']}").get_json()["contents"]
    ]
    recorded = sum(content["progress"]["timeSpentSeconds"] for content in contents if content["progress"])
    assert dashboard["summary"]["timeSpentSeconds"] == recorded
    return int(recorded)


def complains(result: Result, number: int, what: str) -> bool:
    """Tell whether the import's complaints name a line's number together with what is wrong there."""
    return any(re.search(rf"line {number}\b", line) and what in line for line in result.stderr.splitlines())


@contextmanager
def interruption(app: Flask, listen: Listen, nth: int) -> Iterator[None]:
    """Interrupt, as Ctrl-C does, before the nth time that the database is told something."""
    with app.app_context():
        engine = db.engine
    times = iter(range(1, nth + 1))

    def interrupt(*_: Any) -> None:
        if next(times, None) == nth:
            raise KeyboardInterrupt

    listen(engine, "before", interrupt)
    event.listen(engine, "commit", interrupt)
    try:
        yield
    finally:
        list(times)  # what is told from here on is not interrupted
        event.remove(engine, "commit", interrupt)


FULL = {
    "userId": "sam",
    "contentId": "quiz",
    "progressPercentage": 33.7,
    "timeSpentSeconds": 60,
    "score": 2.5,
    "maxScore": 10,
    "position": "007",
    "occurredAt": moment(),
}
OPENED = {"userId": "zoe", "contentId": "cells", "occurredAt": moment(5)}
AS_OBJECTS = [json.dumps(FULL), json.dumps(OPENED)]
AS_TABLE = [",".join(FULL), ",".join(str(value) for value in FULL.values()), f"zoe,cells,,,,,,{moment(5)}"]
QUOTED = [",".join(f'"{cell}"' for cell in line.split(",")) for line in AS_TABLE]
TURNED = [",".join(reversed(line.split(","))) for line in AS_TABLE]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lines(AS_TABLE, "\r\n"), id="CSV of RFC 4180"),
        pytest.param(BOM + lines(QUOTED), id="CSV with BOM and quotes"),
        pytest.param(lines(TURNED).rstrip(), id="CSV, other columns first, without a last line end"),
        pytest.param(lines([AS_TABLE[0], "", *AS_TABLE[1:], ""]), id="CSV with empty lines"),
        pytest.param(gzip.compress(lines(AS_TABLE[:2])) + gzip.compress(lines(AS_TABLE[2:])), id="two gzip members"),
        pytest.param(lines(AS_OBJECTS), id="JSON"),
        pytest.param(BOM + lines(AS_OBJECTS, "\r\n\r\n").rstrip(), id="JSON with BOM and empty lines"),
        pytest.param(gzip.compress(BOM + lines(AS_OBJECTS)), id="JSON in gzip with BOM"),
    ],
)
def test_a_file_of_any_form_means_what_the_same_updates_mean_when_they_are_sent(
    imported: Import, write: Write, service: Callers, content: bytes
) -> None:
    result = imported(write(content))
    assert (result.exit_code, result.stdout) == (0, "2 updates stored.\n"), result.output
    assert "updates.csv" in result.stderr  # the progress bar's label
    received = {
        (learner, module): service().get(f"/api/progress/{learner}/{module}").get_json()
        for learner, module in (("sam", "algebra"), ("zoe", "biology"), ("nora", "algebra"))
    }
    for learner in ("sam", "zoe"):
        assert service().delete(f"/api/progress/{learner}").status_code == 204
    for sent in (FULL, OPENED):
        assert service().post("/api/progress", json=sent).status_code == 201
    for (learner, module), document in received.items():
        expected = service().get(f"/api/progress/{learner}/{module}").get_json()
        for content_shown in (*expected["contents"], *document["contents"]):
            (content_shown["progress"] or {}).pop("id", None)
        assert document == expected


def test_quoted_cells_keep_their_commas_quotes_and_line_ends_and_lines_are_counted_as_in_an_editor(
    imported: Import, write: Write, service: Callers
) -> None:
    rows = ["userId,contentId,position", 'sam,intro,"page 3,\r\n""the ""\nend"', 'sam,quiz,"', '"', "sam,cells,a,b"]
    result = imported(write(lines(rows)))
    assert complains(result, 7, "cells")
    contents = service().get("/api/progress/sam/algebra").get_json()["contents"]
    assert [content["progress"]["position"] for content in contents] == ['page 3,\r\n"the "\nend', "\n"]


def test_updates_without_a_time_happen_now(imported: Import, write: Write, service: Callers) -> None:
    began = datetime.now(UTC)
    assert imported(write(TABLE)).exit_code == 0
    enrollment = service().get("/api/enrollments/sam/algebra").get_json()
    assert began <= instant(enrollment["enrolledAt"]) <= datetime.now(UTC)
    assert enrollment["lastActivityAt"] == enrollment["enrolledAt"]


def test_enrollments_are_made_and_changed_once_but_completed_ones_keep_their_status(
    app: Flask, imported: Import, write: Write, service: Callers
) -> None:
    for content_id in ("intro", "quiz"):
        send(service(), content_id, userId="sam", progressPercentage=100, score=1, maxScore=1)
    rows = [
        "userId,moduleId,status,enrolledAt",
        f"zoe,algebra,paused,{moment()}",
        "zoe,biology,,",
        f"sam,algebra,dropped,{moment(1)}",
        "zoe,algebra,active,",
    ]
    file = write(rows)
    began = datetime.now(UTC)
    result = imported(file, "--enrollments")
    assert (result.exit_code, result.stdout) == (0, "4 enrollments stored.\n"), result.output

    zoes, other, sams, noras = (
        service().get(f"/api/enrollments/{path}").get_json()
        for path in ("zoe/algebra", "zoe/biology", "sam/algebra", "nora/algebra")
    )
    assert (zoes["status"], zoes["enrolledAt"]) == ("active", moment())
    assert (sams["status"], sams["enrolledAt"]) == ("completed", moment(1))
    assert (other["status"], noras["status"]) == ("active", "active")
    assert instant(noras["enrolledAt"]) <= began <= instant(other["enrolledAt"]) <= datetime.now(UTC)

    before = stored(app)
    assert imported(file, "--enrollments").stdout == "0 enrollments stored.\n"
    assert stored(app) == before


@pytest.mark.parametrize("written", [TABLE, OBJECTS])
def test_the_same_content_adds_nothing_however_it_is_named_or_packed_and_however_much_later(
    app: Flask, imported: Import, write: Write, service: Callers, written: list[str]
) -> None:
    assert imported(write(written)).stdout == "6 updates stored.\n"
    assert seconds(service()) == sum(SECONDS)
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(update(ImportedChunk).values(imported_at=datetime(2001, 1, 1, tzinfo=UTC)))
    before = stored(app)
    for file in (
        write(written),
        write(written, "other.jsonl"),
        write(gzip.compress(lines(written), mtime=1), "updates.csv.gz"),
        write(gzip.compress(lines(written), 1, mtime=2), "plain.csv"),
    ):
        result = imported(file)
        assert (result.exit_code, result.stdout) == (0, "0 updates stored.\n"), result.output
        assert stored(app) == before


@pytest.mark.parametrize("written", [TABLE, OBJECTS])
@pytest.mark.parametrize("ended", [True, False])
def test_appended_lines_add_only_themselves(
    imported: Import, write: Write, service: Callers, written: list[str], ended: bool
) -> None:
    for stop in (-3, -1, None):  # chunks that are full and chunks that are not
        content = lines(written[:stop])
        assert imported(write(content if ended else content.rstrip())).exit_code == 0
        assert seconds(service()) == sum(SECONDS[:stop])
    assert seconds(service(), "nora") == 7000


def test_an_import_interrupted_at_any_moment_has_stored_whole_chunks_and_resumes(
    app: Flask, listen: Listen, imported: Import, write: Write, service: Callers
) -> None:
    for nth in count(1):
        learner = f"sam{nth}"
        file = write([line.replace("sam", learner) for line in TABLE[:5]])
        with interruption(app, listen, nth):
            whole = imported(file).exit_code == 0
        chunks = WHOLE_CHUNKS.index(seconds(service(), learner))
        assert imported(file).stdout == f"{4 - CHUNK_LINES * chunks} updates stored.\n"
        assert seconds(service(), learner) == WHOLE_CHUNKS[2]
        if whole:
            break
        interrupted_at = chunks
    assert interrupted_at == 1  # the last time before the last commit


def test_imports_of_the_same_file_at_once_count_once(app: Flask, write: Write, service: Callers) -> None:
    learners = ["sam", "zoe", "kim"]
    file = write([HEADER, *(f"{learner},intro,1" for learner in learners for _ in range(20))])
    both_have_found_nothing_stored = Barrier(2, timeout=30)

    def run(_: int) -> int:
        with app.app_context():
            chunks = importing.run(importing.Source(file, cli.UPDATES), datetime.now(UTC))
            assert next(chunks) == (0, 0)
            both_have_found_nothing_stored.wait()
            return sum(added for _, added in chunks)

    with ThreadPoolExecutor(2) as imports:
        assert sum(imports.map(run, range(2))) == 60
    assert [seconds(service(), learner) for learner in learners] == [20, 20, 20]


def test_an_import_that_another_one_has_overtaken_adds_nothing(app: Flask, write: Write, service: Callers) -> None:
    file = write(TABLE)
    with app.app_context():
        slow, fast = (importing.run(importing.Source(file, cli.UPDATES), datetime.now(UTC)) for _ in range(2))
        assert next(slow) == (0, 0)
        assert sum(added for _, added in fast) == 6
        assert sum(added for _, added in slow) == 0
    assert seconds(service()) == sum(SECONDS)


BAD_ROWS = {
    "sam,intro,1O": "/timeSpentSeconds",
    "sam,intro,14401": "/timeSpentSeconds",
    "=sam,intro,1": "/userId",
    ",intro,1": "/userId",
    "sam,unheard-of,1": "content",
    "sam,intro": "2 cells",
    "sam,intro,1,": "4 cells",
    'sam,"intro"x,1': "CSV",
    'sam,"intro,1': "CSV",
}
BAD_OBJECTS = {
    '{"userId": "sam", "contentId": "intro", "timeSpentSeconds": "1"}': "/timeSpentSeconds",
    '{"userId": "sam", "contentId": "intro", "score": 1}': "/maxScore",
    '{"userId": "sam", "contentId": "intro", "status": "completed"}': "/status",
    '{"userId": "sam", "contentId": "intro", "score": NaN}': "JSON",
    '{"userId": "sam", "contentId": "intro"': "JSON",
    '["sam", "intro", 1]': "",
    "sam,intro,1": "JSON",
}


@pytest.mark.parametrize(
    ("good", "bad", "named"),
    [*((TABLE, *bad) for bad in BAD_ROWS.items()), *((OBJECTS, *bad) for bad in BAD_OBJECTS.items())],
)
def test_a_bad_line_is_named_nothing_of_its_chunk_is_stored_and_the_corrected_file_adds_the_rest(
    app: Flask, imported: Import, write: Write, service: Callers, good: list[str], bad: str, named: str
) -> None:
    place = len(good) - 2  # the first line of the third chunk
    result = imported(write([*good[:place], bad, *good[place:]]))
    assert result.exit_code == REFUSED
    assert complains(result, place + 1, named), result.output
    assert seconds(service()) == WHOLE_CHUNKS[2]
    before = stored(app)
    assert imported(write([*good[:place], bad, *good[place:]])).exit_code == REFUSED
    assert stored(app) == before

    corrected = good[0 if good is OBJECTS else 1].replace("intro", "quiz").replace("1", "64")
    result = imported(write([*good[:place], corrected, *good[place:]]))
    assert (result.exit_code, result.stdout) == (0, "3 updates stored.\n"), result.output
    assert seconds(service()) == sum(SECONDS) + 64
    assert seconds(service(), "nora") == 7000


def test_every_wrong_field_of_every_line_of_the_chunk_is_named(imported: Import, write: Write) -> None:
    result = imported(write([HEADER, "me,intro,x", "sam,a/b,1", "sam,c/d,1"]))
    assert complains(result, 2, "/userId")
    assert complains(result, 2, "/timeSpentSeconds")
    assert complains(result, 3, "/contentId")


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ('{"userId": "sam", "moduleId": "algebra", "status": "completed"}', "/status"),
        ('{"userId": "sam", "moduleId": "algebra", "enrolledAt": "yesterday"}', "/enrolledAt"),
        ('{"userId": "sam", "moduleId": "algebra", "contentId": "intro"}', "/contentId"),
        ('{"userId": "sam", "moduleId": "unheard-of"}', "module"),
        ('{"userId": "sam"}', "/moduleId"),
    ],
)
def test_a_bad_enrollment_is_named_and_nothing_of_its_chunk_is_stored(
    imported: Import, write: Write, service: Callers, bad: str, named: str
) -> None:
    good = [f'{{"userId": "{learner}", "moduleId": "biology"}}' for learner in ("ann", "ben", "cal")]
    result = imported(write([*good, bad]), "--enrollments")
    assert result.exit_code == REFUSED
    assert complains(result, 4, named), result.output
    answers = [service().get(f"/api/enrollments/{learner}/biology") for learner in ("ann", "ben", "cal")]
    assert [answer.status_code for answer in answers] == [200, 200, 404]


def test_updates_of_learners_who_are_not_enrolled_are_named_where_updates_do_not_enroll(
    app: Flask, database_url: str, write: Write
) -> None:
    file = write([HEADER, "nora,intro,1", "nora,quiz,2", "nora,intro,4", "sam,intro,8"])
    with application(database_url, AUTO_ENROLL=False) as strict:
        result = strict.test_cli_runner().invoke(args=["progress", "import", "--updates", str(file)])
    assert result.exit_code == REFUSED
    assert complains(result, 5, "enrolled"), result.output
    assert seconds(Caller(app, "service", "lms"), "nora") == 7003


PACKED = gzip.compress(lines(TABLE))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        pytest.param(lines(TABLE[:5]) + b"sam,intr\xffo,1\n" + lines(TABLE[5:]), "line 6", id="not UTF-8"),
        pytest.param("\n".join(TABLE).encode("utf-16"), "line 1", id="UTF-16"),
        pytest.param(lines(TABLE).replace(b"\n", b"\r"), "line 1", id="line ends of long ago"),
        pytest.param(
            lines(['userId,"contentId,timeSpentSeconds', *TABLE[1:]]), "line 1", id="an open quote in the header"
        ),
        pytest.param(PACKED[:-20], "updates.csv", id="gzip that is cut off"),
        pytest.param(PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "updates.csv", id="gzip with a wrong checksum"),
        pytest.param(PACKED[:10] + b"\xff" + PACKED[11:], "updates.csv", id="gzip that is garbage"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_and_once_it_is_whole_every_line_counts_once(
    imported: Import, write: Write, service: Callers, content: bytes, named: str
) -> None:
    result = imported(write(content))
    assert (result.exit_code, result.stdout) == (REFUSED, "")
    assert named in result.stderr
    assert seconds(service()) in WHOLE_CHUNKS[:3]
    assert imported(write(TABLE)).exit_code == 0
    assert seconds(service()) == sum(SECONDS)


def test_a_file_without_lines_adds_nothing(app: Flask, imported: Import, write: Write) -> None:
    before = stored(app)
    for content in (b"", lines([HEADER]), gzip.compress(b"")):
        result = imported(write(content))
        assert (result.exit_code, result.stdout) == (0, "0 updates stored.\n"), result.output
    assert stored(app) == before


def test_an_import_is_of_updates_or_of_enrollments(app: Flask, write: Write) -> None:
    before, file = stored(app), str(write(TABLE))
    for options in ([], ["--updates", file, "--enrollments", file], ["--updates", f"{file}.gone"]):
        result = app.test_cli_runner().invoke(args=["progress", "import", *options])
        assert result.exit_code == MISUSED
        assert "Usage: " in result.stderr
    assert stored(app) == before
