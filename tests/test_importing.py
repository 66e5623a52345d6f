"""`flask progress import`: files of updates and enrollments, of which every line counts exactly once."""

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from itertools import chain, count
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import Connection, event, insert, select, update

from progress_service import cli, importing
from progress_service.store.database import db
from progress_service.store.models import Change, Enrollment, ImportedChunk
from tests.callers import KEY, Caller
from tests.conftest import Callers, Listen, Publish, application, engine_of, stored
from tests.progress.sending import instant, moment, send
from tests.waiting import PATIENCE_SECONDS

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
    def imported(file: Path | str, *options: str) -> Result:
        kind = () if {"--updates", "--enrollments"} & {*options} else ("--updates",)
        return app.test_cli_runner().invoke(args=["progress", "import", *options, *kind, str(file)])

    return imported


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


def padded(content: list[str]) -> list[str]:
    """Write lines as spreadsheets do that have more columns and rows than are filled."""
    return [*(line + ",," for line in content), "," * (content[0].count(",") + 2)]


def array(content: list[str], between: str = ", ") -> bytes:
    return f"[{between.join(content)}]".encode()


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
        pytest.param(lines(AS_TABLE, "\r"), id="CSV with line ends of long ago"),
        pytest.param(lines(TURNED), id="CSV, other columns first"),
        pytest.param(lines(AS_TABLE).rstrip(), id="CSV that ends in a time, without a last line end"),
        pytest.param(lines(["", "", AS_TABLE[0], "", *AS_TABLE[1:], ""]), id="CSV with empty lines"),
        pytest.param(lines(padded(AS_TABLE)), id="CSV with empty columns and rows"),
        pytest.param(gzip.compress(lines(AS_TABLE[:2])) + gzip.compress(lines(AS_TABLE[2:])), id="two gzip members"),
        pytest.param(lines(AS_OBJECTS), id="JSON"),
        pytest.param(BOM + lines(AS_OBJECTS, "\r\n\r\n").rstrip(), id="JSON with BOM and empty lines"),
        pytest.param(gzip.compress(BOM + lines(AS_OBJECTS)), id="JSON in gzip with BOM"),
        pytest.param(b"\n \n" + lines(AS_OBJECTS), id="JSON after empty lines"),
        pytest.param(array(AS_OBJECTS), id="an array in a line"),
        pytest.param(BOM + json.dumps([FULL, OPENED], indent=2).encode(), id="an array in many lines with BOM"),
        pytest.param(gzip.compress(b"\n" + array(AS_OBJECTS, "\n,\n")), id="an array in gzip"),
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


def enrollment(caller: Caller, learner: str = "sam", module_id: str = "algebra") -> dict[str, Any]:
    answer = caller.get(f"/api/enrollments/{learner}/{module_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.get_json())


LINES = [
    {"userId": "sam", "moduleId": "algebra", "status": "paused", "enrolledAt": moment(30)},
    {"userId": "sam", "moduleId": "algebra", "status": "dropped", "occurredAt": moment(50), "counted": False},
    {"userId": "sam", "moduleId": "algebra", "status": "active", "enrolledAt": moment(40)},
    {"userId": "sam", "moduleId": "algebra", "enrolledAt": moment(10), "occurredAt": moment(60)},
    {"userId": "sam", "moduleId": "algebra", "counted": True, "occurredAt": moment(20)},
]
COMPLETIONS = [
    {"userId": "sam", "moduleId": "algebra", "status": "completed", "completedAt": moment(45)},
    {"userId": "sam", "moduleId": "algebra", "status": "completed", "completedAt": moment(55), "enrolledAt": moment()},
]


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 4, 3, 0, 2], [3, 1, 0, 4, 2]])
@pytest.mark.parametrize("completions", [0, 1, 2])
def test_of_what_lines_tell_of_an_enrollment_the_latest_counts_across_chunks_and_files(
    imported: Import, write: Write, service: Callers, order: list[int], size: int, completions: int
) -> None:
    given = [LINES[place] for place in order]
    for place, completion in enumerate(COMPLETIONS[:completions]):
        given.insert(3 * (1 - place), completion)
    for start in range(0, len(given), size):
        result = imported(write(list(map(json.dumps, given[start : start + size]))), "--enrollments")
        assert result.exit_code == 0, result.output

    found = enrollment(service())
    completed = ["dropped", None], ["completed", moment(45)], ["completed", moment(55)]
    assert [found["status"], found["completedAt"]] == completed[completions]
    assert (found["enrolledAt"], found["counted"]) == (moment(10), False)


def test_of_lines_with_equal_dates_the_last_counts_and_a_line_without_a_date_is_of_the_import(
    imported: Import, write: Write, service: Callers
) -> None:
    def import_line(**fields: Any) -> str:
        line = json.dumps({"userId": "sam", "moduleId": "algebra", **fields})
        assert imported(write([line]), "--enrollments").exit_code == 0
        return str(enrollment(service())["status"])

    assert import_line(status="paused", enrolledAt=moment(5)) == "paused"
    assert import_line(status="dropped", enrolledAt=moment(5)) == "dropped"
    assert import_line(status="active") == "active"
    assert import_line(status="dropped", occurredAt=moment(1_000_000)) == "active"
    assert service().put("/api/enrollments/sam/algebra", json={"status": "paused"}).status_code == 200
    assert import_line(status="dropped", occurredAt=moment(1_000_001)) == "paused"


def test_a_line_changes_what_a_request_has_set(imported: Import, write: Write, service: Callers) -> None:
    service().put("/api/enrollments/sam/algebra", json={"status": "paused", "enrolledAt": moment(9), "counted": False})
    table = ["userId,moduleId,status,enrolledAt,counted", f"sam,algebra,dropped,{moment()},TRUE"]
    assert imported(write(table), "--enrollments").exit_code == 0
    found = enrollment(service())
    assert (found["status"], found["enrolledAt"], found["counted"]) == ("dropped", moment(), True)


def test_a_completed_line_is_a_credit_whatever_the_records_tell(
    app: Flask, imported: Import, write: Write, service: Callers
) -> None:
    send(service(), "intro", userId="zoe", progressPercentage=100)
    send(service(), "quiz", userId="zoe", progressPercentage=100, score=1, maxScore=1)
    by_updates = enrollment(service(), "zoe")["completedAt"]
    table = [
        "userId,moduleId,status,enrolledAt,completedAt,occurredAt,counted",
        f"sam,algebra,completed,{moment()},{moment(30)},,",
        f"kim,algebra,completed,,,{moment(20)},false",
        "zoe,algebra,completed,,,,",
        f"nora,algebra,completed,,{moment(10)},,",
    ]
    assert imported(write(table), "--enrollments").exit_code == 0

    found = {learner: enrollment(service(), learner) for learner in ("sam", "kim", "zoe", "nora")}
    assert {one["status"] for one in found.values()} == {"completed"}
    dates = {learner: one["completedAt"] for learner, one in found.items()}
    assert dates == {"sam": moment(30), "kim": moment(20), "zoe": by_updates, "nora": moment(10)}
    assert [one["progressPercentage"] for one in found.values()] == [0, 0, 100, 35]
    send(service(), "intro", userId="sam", progressPercentage=100, occurredAt=moment(90))
    assert enrollment(service())["completedAt"] == moment(30)
    learners = service().get("/api/progress/stats/algebra").get_json()["learners"]
    assert (learners["enrolled"], learners["completed"]) == (3, 3), "kim does not count"
    assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0


def test_the_journal_tells_as_of_when_a_line_has_changed_an_enrollment(
    app: Flask, imported: Import, write: Write, service: Callers
) -> None:
    service().put("/api/enrollments/sam/algebra", json={"enrolledAt": moment()})
    given = [
        {"status": "dropped", "occurredAt": moment(7)},
        {"status": "paused", "occurredAt": moment(5)},
        {"status": "completed", "completedAt": moment(9)},
    ]
    for line in given:
        written = write([json.dumps({"userId": "sam", "moduleId": "algebra", **line})])
        assert imported(written, "--enrollments").exit_code == 0

    with app.app_context(), db.engine.connect() as connection:
        changes = select(Change.type, Change.time, Change.by_role).filter_by(user_id="sam").order_by(Change.id)
        told = connection.execute(changes)
        found = [(kind, time.isoformat().replace("+00:00", "Z"), role) for kind, time, role in told]
    assert found == [
        ("enrollment.created", moment(), "service"),
        ("enrollment.changed", moment(7), "command"),
        ("enrollment.completed", moment(9), "command"),
    ]


def test_what_lines_have_told_is_forgotten_with_the_enrollment(
    app: Flask, imported: Import, write: Write, service: Callers
) -> None:
    late = json.dumps({"userId": "sam", "moduleId": "algebra", "status": "paused", "occurredAt": moment(9)})
    early = json.dumps({"userId": "sam", "moduleId": "algebra", "status": "dropped", "occurredAt": moment(1)})
    imported(write([late]), "--enrollments")
    assert service().delete("/api/progress/sam").status_code == 204
    assert not stored(app)["imported_enrollments"]
    imported(write([early]), "--enrollments")
    assert enrollment(service())["status"] == "dropped"
    imported(write(['{"userId": "zoe", "moduleId": "algebra"}']), "--enrollments")
    assert len(stored(app)["imported_enrollments"]) == 1, "a line that tells nothing is not noted"


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        ([], {"status": "paused", "enrolledAt": moment(2), "counted": False}),
        ([{"status": "active"}], {"status": "dropped", "enrolledAt": moment(3), "counted": True}),
        ([{"counted": True}], {"status": "dropped", "enrolledAt": moment(3), "counted": True}),
    ],
)
def test_what_lines_have_told_of_a_merged_learner_counts_with_what_the_merge_has_taken(
    imported: Import, write: Write, service: Callers, known: list[dict[str, Any]], kept: dict[str, Any]
) -> None:
    def import_line(learner: str, minute: int, **fields: Any) -> None:
        line = {"userId": learner, "moduleId": "algebra", "occurredAt": moment(minute), **fields}
        assert imported(write([json.dumps(line)]), "--enrollments").exit_code == 0

    for fields in known:
        import_line("sam", 4, **fields)
    import_line("kim", 9, status="paused", enrolledAt=moment(2), counted=False)
    assert service().post("/api/progress/kim/merge", json={"into": "sam"}).status_code == 204
    import_line("sam", 5, status="dropped", enrolledAt=moment(3))
    import_line("sam", 3, counted=True)

    found = enrollment(service())
    assert {name: found[name] for name in kept} == kept


def test_a_credit_of_a_merged_learner_competes_with_the_lines_of_the_other(
    imported: Import, write: Write, service: Callers
) -> None:
    def import_credit(learner: str, minute: int, completed_at: str) -> None:
        line = {"userId": learner, "moduleId": "algebra", "occurredAt": moment(minute), "status": "completed"}
        result = imported(write([json.dumps({**line, "completedAt": completed_at})]), "--enrollments")
        assert result.exit_code == 0

    send(service(), "intro", userId="sam")
    import_credit("kim", 9, moment(2))
    assert service().post("/api/progress/kim/merge", json={"into": "sam"}).status_code == 204
    import_credit("sam", 8, moment(1))
    assert enrollment(service())["completedAt"] == moment(2)
    import_credit("sam", 10, moment(3))
    assert enrollment(service())["completedAt"] == moment(3)


@pytest.mark.parametrize("written", ["CSV", "JSON"])
def test_lines_with_a_session_count_once_in_whatever_file_they_stand(
    imported: Import, write: Write, service: Callers, written: str
) -> None:
    told = [("s", 60), ("s", 90), ("t", 40), ("s", 20), ("t", 50), ("", 5)]
    if written == "CSV":
        begin = ["userId,contentId,session,timeSpentSeconds"]
        every = [f"sam,intro,{session},{more}" for session, more in told]
    else:
        begin = []
        objects = [
            {"userId": "sam", "contentId": "intro", "timeSpentSeconds": more}
            | ({"session": session} if session else {})
            for session, more in told
        ]
        every = list(map(json.dumps, objects))
    assert imported(write([*begin, *every])).stdout == "6 updates stored.\n"
    assert seconds(service()) == 90 + 50 + 5
    for overlapping in (every[2:5], every[4::-1], [every[1], *every[:5]]):
        assert imported(write([*begin, *overlapping])).stdout == f"{len(overlapping)} updates stored.\n"
        assert seconds(service()) == 90 + 50 + 5


FORMS = [
    lines(TABLE),
    BOM + lines(TABLE, "\r\n"),
    lines(TABLE, "\r"),
    lines(TABLE).rstrip(),
    lines([",".join(f'"{cell}"' for cell in line.split(",")) for line in TABLE]),
    lines([",".join(reversed(line.split(","))) for line in TABLE]),
    BOM + lines(padded([f"{line}.0" if line != HEADER else line for line in TABLE]), "\r\n"),
    lines(["", *chain.from_iterable((line, "") for line in TABLE)]),
    gzip.compress(lines(TABLE), mtime=1),
    gzip.compress(lines(TABLE), 1, mtime=2),
    lines(OBJECTS),
    BOM + lines(OBJECTS, "\r\n\r\n"),
    lines([json.dumps(dict(reversed(json.loads(line).items()))) for line in OBJECTS]),
    gzip.compress(lines(OBJECTS)),
    array(OBJECTS),
    json.dumps([json.loads(line) for line in OBJECTS], indent=2).encode(),
]
"""The same lines as programs may write them."""


@pytest.mark.parametrize("place", range(len(FORMS)))
def test_the_same_lines_add_nothing_however_they_are_written_and_packed_and_however_much_later(
    app: Flask, imported: Import, write: Write, service: Callers, place: int
) -> None:
    assert imported(write(FORMS[place]), "--complete").stdout == "6 updates stored.\n"
    assert seconds(service()) == sum(SECONDS)
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(update(ImportedChunk).values(imported_at=datetime(2001, 1, 1, tzinfo=UTC)))
    before = stored(app)
    for name, content in enumerate(FORMS):
        result = imported(write(content, str(name)), "--complete")
        assert (result.exit_code, result.stdout) == (0, "0 updates stored.\n"), result.output
        assert stored(app) == before


@pytest.mark.parametrize("changed", ["sam,intro,5", "sam,quiz,4", "zoe,intro,4", "sam,intro,"])
def test_lines_count_anew_from_the_chunk_on_that_says_something_else(
    imported: Import, write: Write, changed: str
) -> None:
    imported(write(TABLE))
    assert imported(write([*TABLE[:3], changed, *TABLE[4:]])).stdout == "4 updates stored.\n"
    assert imported(write(TABLE)).stdout == "0 updates stored.\n"


def test_a_text_that_looks_like_a_number_says_what_it_says(imported: Import, write: Write) -> None:
    for position in ("007", "7", "7.0", "", " "):
        table = write(["userId,contentId,position", f"sam,intro,{position}"])
        assert imported(table).stdout == "1 updates stored.\n"
        assert imported(table).stdout == "0 updates stored.\n"


@pytest.mark.parametrize("mark", [b"", BOM])
@pytest.mark.parametrize(
    "given",
    [lines(TABLE), BOM + lines(TABLE, "\r\n"), gzip.compress(lines(TABLE).rstrip())],
    ids=["as it was", "with BOM", "in gzip"],
)
def test_what_earlier_versions_imported_is_known(
    app: Flask, imported: Import, write: Write, service: Callers, mark: bytes, given: bytes
) -> None:
    """They took the bytes of the lines without their ends, and a byte order mark with them."""
    with app.app_context(), db.engine.begin() as connection:
        for end in (3, 5):
            digest = hashlib.sha256(b"updates" + mark + lines(TABLE[:end])).hexdigest()
            connection.execute(insert(ImportedChunk).values(digest=digest, lines=end, imported_at=datetime.now(UTC)))
    assert imported(write(given), "--complete").stdout == "2 updates stored.\n"
    assert seconds(service()) == 16 + 32
    assert imported(write(given), "--complete").stdout == "0 updates stored.\n"


@pytest.mark.parametrize("written", [TABLE, OBJECTS])
def test_appended_lines_add_only_themselves(
    imported: Import, write: Write, service: Callers, written: list[str]
) -> None:
    for stop in (-3, -1, None):  # chunks that are full and chunks that are not
        assert imported(write(written[:stop])).exit_code == 0
        assert seconds(service()) == sum(SECONDS[:stop])
    assert seconds(service(), "nora") == 7000


@pytest.mark.parametrize("written", [TABLE, OBJECTS])
def test_a_file_that_grows_byte_by_byte_counts_every_line_once_and_none_that_is_half(
    imported: Import, write: Write, service: Callers, written: list[str]
) -> None:
    content, first = lines(written), len(lines(written[:1]))
    for size in (*range(first, len(content), 11), len(content)):
        result = imported(write(content[:size]))
        assert result.exit_code == 0, result.output
        whole = content[:size].count(b"\n") - (written is TABLE) + content[:size].endswith(b"}")
        assert seconds(service()) == sum(SECONDS[:whole])
    assert seconds(service()) == sum(SECONDS)


@pytest.mark.parametrize(
    "half",
    [
        b"sam,intro,36",
        b"sam,intro,",
        b"sam,int",
        b'sam,"intro',
        b'"sam"x',
        b"sam,intro,1,",
        b"sam,\xc3",
        b'{"userId": "sam", "contentId": "intro", "timeSpentSeconds": 3',
    ],
)
@pytest.mark.parametrize("whole", range(3))
def test_a_last_line_without_its_end_is_left_for_the_next_run_and_this_is_said(
    imported: Import, write: Write, service: Callers, half: bytes, whole: int
) -> None:
    given = lines(OBJECTS[: whole + 1] if half.startswith(b"{") else TABLE[: whole + 1])
    result = imported(write(given + half))
    stored = whole + half.startswith(b"{")
    assert (result.exit_code, result.stdout) == (0, f"{stored} updates stored.\n"), result.output
    assert f"Line {whole + 2} has no line end" in result.stderr
    assert seconds(service()) == sum(SECONDS[:stored])


@pytest.mark.parametrize("time", ["2024-01-05T12:00:00Z", "2024-01-05t12:00:00.5+01:00", "2024-01-05T12:00:00", ""])
def test_a_row_that_ends_in_a_time_is_whole_without_a_line_end(imported: Import, write: Write, time: str) -> None:
    is_whole = "Z" in time or "+" in time
    table = lines(["userId,contentId,occurredAt", f"sam,intro,{time}"])
    result = imported(write(table.removesuffix(b"\n")))
    assert (result.exit_code, result.stdout) == (0, f"{int(is_whole)} updates stored.\n")
    assert ("line end" in result.stderr) is not is_whole


@pytest.mark.parametrize("written", [TABLE, OBJECTS])
def test_a_last_line_without_its_end_is_taken_where_it_is_said_to_be_whole(
    imported: Import, write: Write, service: Callers, written: list[str]
) -> None:
    result = imported(write(lines(written[:-1]).rstrip()), "--complete")
    assert (result.exit_code, result.stdout) == (0, "5 updates stored.\n")
    assert "line end" not in result.stderr
    assert imported(write(written)).stdout == "1 updates stored.\n"
    assert seconds(service()) == sum(SECONDS)
    result = imported(write(lines(written) + b"sam,\xc3"), "--complete")
    assert complains(result, len(written) + 1, "UTF-8")


@contextmanager
def piped(content: bytes) -> Iterator[str]:
    """Give the path of a pipe that is written to while it is read, as a shell's `<(...)` does."""
    reading, writing = os.pipe()
    with ThreadPoolExecutor(1) as writer, open(writing, "wb") as file, open(reading, "rb"):

        def fill() -> None:
            with file:
                file.write(content)

        writer.submit(fill)
        yield f"/dev/fd/{reading}"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("written", [lines(TABLE), lines(OBJECTS), array(OBJECTS)])
def test_a_pipe_is_read_as_a_file_is_and_resumes_too(
    imported: Import, write: Write, service: Callers, written: bytes, pack: Callable[[bytes], bytes]
) -> None:
    imported(write(TABLE[:4]))
    with piped(pack(written)) as pipe:
        result = imported(pipe)
    assert (result.exit_code, result.stdout) == (0, "3 updates stored.\n"), result.output
    assert seconds(service()) == sum(SECONDS)
    with piped(pack(written)) as pipe:
        assert imported(pipe).stdout == "0 updates stored.\n"


def test_a_named_pipe_is_read_once(imported: Import, tmp_path: Path, service: Callers) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as writer:
        writer.submit(pipe.write_bytes, lines(TABLE))
        assert imported(pipe).stdout == "6 updates stored.\n"
    assert seconds(service()) == sum(SECONDS)


@pytest.mark.slow
def test_standard_input_is_read_from_where_it_stands(
    database_url: str, write: Write, service: Callers, tmp_path: Path
) -> None:
    environment = os.environ | {"PROGRESS_SQLALCHEMY_DATABASE_URI": database_url, "PROGRESS_JWT_SECRET_KEY": KEY}
    for given in (TABLE[:4], TABLE):
        with write(["a title", *given]).open("rb", buffering=0) as file:
            file.readline()
            command = [sys.executable, "-m", "flask", "--app", "wsgi", "progress", "import", "--updates", "-"]
            done = subprocess.run(command, env=environment, stdin=file, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "3 updates stored.\n"), done.stderr
    assert seconds(service()) == sum(SECONDS)


@pytest.mark.parametrize("is_pipe", [False, True])
def test_progress_is_shown_in_bytes_or_of_a_pipe_in_lines(
    imported: Import, write: Write, monkeypatch: pytest.MonkeyPatch, is_pipe: bool
) -> None:
    monkeypatch.setattr("click._termui_impl.isatty", lambda stream: True)
    file = write(TABLE)
    with piped(lines(TABLE)) as pipe:
        result = imported(pipe if is_pipe else file)
    assert ("100%" in result.stderr) is not is_pipe


def test_an_import_interrupted_at_any_moment_has_stored_whole_chunks_and_resumes(
    app: Flask, listen: Listen, imported: Import, write: Write, service: Callers
) -> None:
    left = set()
    for nth in count(1):
        learner = f"sam{nth}"
        file = write([line.replace("sam", learner) for line in TABLE[:5]])
        with interruption(app, listen, nth):
            whole = imported(file).exit_code == 0
        chunks = WHOLE_CHUNKS.index(seconds(service(), learner))
        left.add(chunks)
        assert imported(file).stdout == f"{4 - CHUNK_LINES * chunks} updates stored.\n"
        assert seconds(service(), learner) == WHOLE_CHUNKS[2]
        if whole:
            break
    # How far the first chunk is when the second one is interrupted depends on the threads.
    assert {0, 2} <= left


@pytest.mark.parametrize("usual_app", ["postgresql"], indirect=True)
def test_a_chunk_that_waits_for_the_chunk_before_it_gives_up_its_locks(app: Flask, service: Callers) -> None:
    content = lines([HEADER, "nora,intro,1", "nora,intro,2", "zoe,intro,4", "zoe,intro,8"])
    zoes_are_stored = Event()

    def store(connection: Connection, given: Sequence[dict[str, Any]], now: datetime) -> None:
        cli.UPDATES.store(connection, given, now)
        if given[0]["user_id"] == "zoe":
            zoes_are_stored.set()

    def run() -> list[int]:
        with app.app_context():
            source = importing.Source(BytesIO(content), cli.UPDATES._replace(store=store))
            return list(importing.run(source, datetime.now(UTC)))

    with ThreadPoolExecutor(1) as imports, engine_of(app).connect() as connection:
        connection.execute(select(Enrollment).filter_by(user_id="nora").with_for_update())
        stored = imports.submit(run)
        assert zoes_are_stored.wait(PATIENCE_SECONDS)
        send(service(), "intro", userId="zoe", timeSpentSeconds=16)
        assert not stored.done()
        connection.rollback()
        assert stored.result() == [2, 2]
    assert (seconds(service(), "nora"), seconds(service(), "zoe")) == (7003, 28)


def test_an_import_needs_no_more_connections_than_there_are(database_url: str, write: Write) -> None:
    with application(database_url, POOL_SIZE=1, POOL_TIMEOUT=0) as small:
        result = small.test_cli_runner().invoke(args=["progress", "import", "--updates", str(write(TABLE))])
    assert result.stdout == "6 updates stored.\n", result.output


class Slow(BytesIO):
    """A file that calls a hook before it is read."""

    def __init__(self, content: bytes, hook: Callable[[], object]) -> None:
        super().__init__(content)
        self.hooks = [hook]

    def readinto(self, buffer: Any, /) -> int:
        if self.hooks:
            self.hooks.pop()()
        return super().readinto(buffer)


def test_imports_of_the_same_file_at_once_count_once(app: Flask, service: Callers) -> None:
    learners = ["sam", "zoe", "kim"]
    content = lines([HEADER, *(f"{learner},intro,1" for learner in learners for _ in range(20))])
    both_have_found_nothing_stored = Barrier(2, timeout=PATIENCE_SECONDS)

    def run(_: int) -> int:
        with app.app_context():
            source = importing.Source(Slow(content, both_have_found_nothing_stored.wait), cli.UPDATES)
            return sum(importing.run(source, datetime.now(UTC)))

    with ThreadPoolExecutor(2) as imports:
        assert sum(imports.map(run, range(2))) == 60
    assert [seconds(service(), learner) for learner in learners] == [20, 20, 20]


@pytest.mark.parametrize("turned", [1, -1])
def test_imports_at_once_of_files_that_overlap_end_as_one_after_the_other(
    app: Flask, service: Callers, turned: int
) -> None:
    learners = ["sam", "zoe", "kim"]
    updates = [
        {"userId": learner, "contentId": "intro", "session": "s", "timeSpentSeconds": total}
        for total in (10, 40, 20)
        for learner in learners
    ]
    changes = [
        {"userId": learner, "moduleId": "algebra", "status": status, "occurredAt": moment(minute)}
        for minute, status in ((1, "dropped"), (9, "paused"), (5, "active"))
        for learner in learners
    ]
    both_have_begun = Barrier(2, timeout=PATIENCE_SECONDS)

    def run(kind: importing.Kind, given: list[dict[str, Any]]) -> int:
        with app.app_context():
            source = importing.Source(Slow(lines(list(map(json.dumps, given))), both_have_begun.wait), kind)
            return sum(importing.run(source, datetime.now(UTC)))

    for kind, first in ((cli.UPDATES, updates), (cli.ENROLLMENTS, changes)):
        second = first[2:][::turned]
        with ThreadPoolExecutor(2) as imports:
            assert list(imports.map(run, [kind, kind], [first, second])) == [len(first), len(second)]

    assert [seconds(service(), learner) for learner in learners] == [40, 40, 40]
    assert [enrollment(service(), learner)["status"] for learner in learners] == ["paused"] * 3


@pytest.mark.parametrize("before", [[], [1], [2], [3], [1, 3]])
@pytest.mark.parametrize("whole", [4, 5])
def test_a_beginning_of_a_file_that_was_imported_adds_nothing(
    imported: Import, write: Write, service: Callers, before: list[int], whole: int
) -> None:
    for number in (*before, whole, *range(whole), 6, 5):
        assert imported(write(TABLE[: number + 1])).exit_code == 0
    assert seconds(service()) == sum(SECONDS)


def test_a_line_that_is_not_as_it_was_counts_with_its_chunk_wherever_the_file_ends(
    imported: Import, write: Write, service: Callers
) -> None:
    imported(write(TABLE[:5]))
    assert imported(write([*TABLE[:3], "sam,intro,64"])).stdout == "1 updates stored.\n"
    assert imported(write([*TABLE[:3], "sam,intro,64", TABLE[4]])).stdout == "1 updates stored.\n"
    assert seconds(service()) == sum(SECONDS[:4]) + 64 + SECONDS[3]


@pytest.mark.parametrize("others", [[3], [1, 4], [1, 2, 5], [3, 3, 6]])
def test_an_import_adds_what_those_that_have_overtaken_it_left_of_a_file_that_grows(
    app: Flask, service: Callers, others: list[int]
) -> None:
    def overtake() -> None:
        for number, before in zip(others, [0, *others], strict=False):
            fast = importing.Source(BytesIO(lines(TABLE[: number + 1])), cli.UPDATES)
            assert sum(importing.run(fast, datetime.now(UTC))) == number - before

    with app.app_context():
        slow = importing.Source(Slow(lines(TABLE), overtake), cli.UPDATES)
        assert sum(importing.run(slow, datetime.now(UTC))) == len(SECONDS) - others[-1]
    assert seconds(service()) == sum(SECONDS)


def test_imports_at_once_of_a_file_that_grows_count_each_line_once(app: Flask, service: Callers) -> None:
    numbers = [3, 4, 6]
    all_have_found_nothing_stored = Barrier(len(numbers), timeout=PATIENCE_SECONDS)

    def run(number: int) -> int:
        with app.app_context():
            file = Slow(lines(TABLE[: number + 1]), all_have_found_nothing_stored.wait)
            return sum(importing.run(importing.Source(file, cli.UPDATES), datetime.now(UTC)))

    with ThreadPoolExecutor(len(numbers)) as imports:
        assert sum(imports.map(run, numbers)) == len(SECONDS)
    assert seconds(service()) == sum(SECONDS)


@pytest.mark.parametrize("usual_app", ["postgresql"], indirect=True)
def test_of_imports_that_store_the_same_lines_at_the_same_moment_one_begins_again(app: Flask, service: Callers) -> None:
    first_calls = iter(range(2))
    both_have_looked = Barrier(2, timeout=PATIENCE_SECONDS)

    def store(connection: Connection, given: Sequence[dict[str, Any]], now: datetime) -> None:
        if given[0]["time_spent_seconds"] == SECONDS[2] and next(first_calls, None) is not None:
            both_have_looked.wait()
        cli.UPDATES.store(connection, given, now)

    def run(number: int) -> int:
        with app.app_context():
            source = importing.Source(BytesIO(lines(TABLE[: number + 1])), cli.UPDATES._replace(store=store))
            return sum(importing.run(source, datetime.now(UTC)))

    with ThreadPoolExecutor(2) as imports:
        assert sum(imports.map(run, [3, 4])) == 4
    assert seconds(service()) == sum(SECONDS[:4])


def test_an_import_that_another_one_has_overtaken_adds_nothing(app: Flask, service: Callers) -> None:
    def overtake() -> None:
        fast = importing.Source(BytesIO(lines(TABLE)), cli.UPDATES)
        assert sum(importing.run(fast, datetime.now(UTC))) == 6

    with app.app_context():
        slow = importing.Source(Slow(lines(TABLE), overtake), cli.UPDATES)
        assert sum(importing.run(slow, datetime.now(UTC))) == 0
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
    "[" * 10_000: "JSON",
    f'{{"userId": "sam", "contentId": "intro", "position": "{"x" * 65_536}"}}': "65536",
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


BAD_ELEMENTS = {
    '{"userId": "sam", "contentId": "intro", "score": 1}': "/4/maxScore",
    '{"userId": "sam", "contentId": "unheard-of"}': "/4: The content",
    '{"userId": "sam", "contentId": "intro", "score": NaN}': "/4: ",
    '{"userId": "sam", "contentId": "intro"': "/4: ",
    '{"userId": "sam", "contentId": "intro" "score": 1}' + " " * 70_000: "/4: Is not JSON",
    "sam": "/4: ",
    "36": "/4: ",
    "[1]": "/4: ",
    "": "/4: ",
}


@pytest.mark.parametrize("between", [",\n", ","])
@pytest.mark.parametrize("bad", BAD_ELEMENTS)
def test_a_bad_object_of_an_array_is_named_by_its_line_and_place(
    imported: Import, write: Write, service: Callers, bad: str, between: str
) -> None:
    result = imported(write(array([*OBJECTS[:4], bad, OBJECTS[4]], between)))
    assert result.exit_code == REFUSED
    assert complains(result, 5 if between == ",\n" else 1, BAD_ELEMENTS[bad]), result.output
    assert seconds(service()) == WHOLE_CHUNKS[2]
    assert imported(write(array(OBJECTS, between))).stdout == "2 updates stored.\n"


@pytest.mark.parametrize("end", ["", "]]", "], 1", "] x"])
def test_an_array_that_has_no_end_or_goes_on_is_refused(imported: Import, write: Write, end: str) -> None:
    result = imported(write(array(OBJECTS).rstrip(b"]") + end.encode()))
    assert (result.exit_code, result.stdout) == (REFUSED, "")
    assert complains(result, 1, "/6"), result.output


def test_every_wrong_field_of_every_line_of_the_chunk_is_named(imported: Import, write: Write) -> None:
    result = imported(write([HEADER, "me,intro,x", "sam,a/b,1", "sam,c/d,1"]))
    assert complains(result, 2, "/userId")
    assert complains(result, 2, "/timeSpentSeconds")
    assert complains(result, 3, "/contentId")


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ('{"userId": "sam", "moduleId": "algebra", "status": "finished"}', "/status"),
        ('{"userId": "sam", "moduleId": "algebra", "completedAt": "2025-01-31T12:00:00Z"}', "/completedAt"),
        ('{"userId": "sam", "moduleId": "algebra", "completedAt": "soon", "status": "completed"}', "/completedAt"),
        ('{"userId": "sam", "moduleId": "algebra", "counted": "yes"}', "/counted"),
        ('{"userId": "sam", "moduleId": "algebra", "occurredAt": "9999-01-01T00:00:00Z"}', "/occurredAt"),
        ('["sam", "algebra"]', ""),
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
    assert seconds(service()) in WHOLE_CHUNKS
    assert imported(write(TABLE)).exit_code == 0
    assert seconds(service()) == sum(SECONDS)


NEITHER = {
    "nothing": b"",
    "nothing but a mark": BOM,
    "empty lines": b"\n \r\n\n",
    "nothing in gzip": gzip.compress(b""),
    "HTML": b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\n</html>\n",
    "HTML in a line": b'<html lang="en"><p>Sorry, that did not work.</p></html>',
    "semicolons": lines(TABLE).replace(b",", b";"),
    "tabs": lines(TABLE).replace(b",", b"\t"),
    "rows without a header": lines(TABLE[1:]),
    "an object in several lines": json.dumps(FULL, indent=2).encode(),
    "half an object": b'{"userId": "sam", "contentId": "intro"',
    "an array of arrays": b'[["sam", "intro", 1]]',
    "an array of numbers": b"[1, 2]",
    "a number": b"1\n",
    "JSON that is no object": b'"userId"\n',
    "a document of a spreadsheet": b"PK\x03\x04\x14\0\x08\x08\x08\0\xfa\xce\n",
}
HEADERS = {
    "userId,contentId,seconds": "unknown: 'seconds'",
    "userId,contentId, score": "unknown: ' score'",
    "userId,contentId,timeSpentSeconds,timeSpentSeconds": "repeated: 'timeSpentSeconds'",
    "userId,userId,contentId,contentId": "repeated: 'userId', 'contentId'",
    "userId,timeSpentSeconds": "missing: 'contentId'",
    "contentid,userId,,userId": "missing: 'contentId'; repeated: 'userId'; unknown: 'contentid'",
    ",,": "missing: 'contentId', 'userId'",
    "userId,contentId," + ",".join(f"column{n}" for n in range(3000)): "unknown: 'column0', 'column1'",
}


@pytest.mark.parametrize(
    "content", [*NEITHER.values(), *(lines([h, *TABLE[1:]]) for h in HEADERS)], ids=[*NEITHER, *HEADERS]
)
@pytest.mark.parametrize("option", ["--updates", "--enrollments"])
def test_a_file_of_neither_form_is_refused_at_line_1_in_one_line(
    app: Flask, imported: Import, write: Write, content: bytes, option: str
) -> None:
    before = stored(app)
    result = imported(write(content), option)
    assert (result.exit_code, result.stdout) == (REFUSED, "")
    complaints = [line for line in result.stderr.splitlines() if "line " in line]
    assert len(complaints) == 1, result.stderr
    assert "line 1" in complaints[0] or content in (NEITHER["empty lines"],)
    assert len(complaints[0]) < 600
    assert stored(app) == before


@pytest.mark.parametrize("header", HEADERS)
def test_what_is_wrong_with_a_header_is_told_once(imported: Import, write: Write, header: str) -> None:
    result = imported(write(["", header, *TABLE[1:]]))
    assert complains(result, 2, HEADERS[header]), result.stderr


def test_a_cell_below_no_name_is_refused(imported: Import, write: Write) -> None:
    result = imported(write([f"{HEADER},", *(f"{line}," for line in TABLE[1:3]), "sam,intro,4,8"]))
    assert complains(result, 4, "header"), result.stderr


@pytest.mark.parametrize(
    "content", [lines([HEADER]), BOM + HEADER.encode(), gzip.compress(lines([HEADER, ",,"]), mtime=0), b"[]"]
)
def test_a_file_without_lines_adds_nothing(app: Flask, imported: Import, write: Write, content: bytes) -> None:
    before = stored(app)
    result = imported(write(content))
    assert (result.exit_code, result.stdout) == (0, "0 updates stored.\n"), result.output
    assert "line end" not in result.stderr
    assert stored(app) == before


def test_an_import_is_of_updates_or_of_enrollments(app: Flask, write: Write) -> None:
    before, file = stored(app), str(write(TABLE))
    for options in ([], ["--updates", file, "--enrollments", file], ["--updates", f"{file}.gone"]):
        result = app.test_cli_runner().invoke(args=["progress", "import", *options])
        assert result.exit_code == MISUSED
        assert "Usage: " in result.stderr
    assert stored(app) == before
