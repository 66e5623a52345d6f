"""All of an installation is dumped from one snapshot, and restored into either database; feeds and webhooks go on."""

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, text

from progress_service import copying
from progress_service.copying import Refused
from progress_service.store import database
from progress_service.store.arrivals import NOT_BROUGHT
from progress_service.store.database import db
from tests.callers import Caller
from tests.conftest import DIALECTS, application, empty, engine_of, examples, stored, wait_until_settled
from tests.receiver import receiving
from tests.test_exactness import Action, World, actions
from tests.test_migrating import NEWEST
from tests.test_migrations import EXTREME_ROWS, FINE, STORED
from tests.test_readiness import at, reason

REFUSED = 1
REPEATED: dict[str, Any] = {
    "json": {"userId": "sam", "contentId": "sums", "timeSpentSeconds": 30},
    "headers": {"Idempotency-Key": "a-minute"},
}


def run(app: Flask, *arguments: object) -> Result:
    return app.test_cli_runner().invoke(args=["progress", *map(str, arguments)])


def dump(app: Flask, file: Path) -> list[str]:
    """Dump an application's database, and return the lines."""
    result = run(app, "dump", file)
    assert result.exit_code == 0, result.output
    return (gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()).decode().splitlines()


def restore(app: Flask, file: object) -> None:
    result = run(app, "restore", file)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "0 figures differ from their recount."


def refusal(app: Flask, file: Path, text: str | bytes | None = None) -> str:
    """Return why a dump is refused, in one line; `text` is what the file has from now on."""
    if text is not None:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
    result = run(app, "restore", file)
    assert (result.exit_code, result.stdout) == (REFUSED, ""), result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def contents(app: Flask) -> dict[str, list[Any]]:
    """Return every row of every table, but for how the database came to be where it is and when it was verified."""
    tables = [table for table in db.metadata.sorted_tables if table not in NOT_BROUGHT]
    with engine_of(app).connect() as connection:
        found = {table.name: connection.execute(table.select()) for table in tables}
        return {name: sorted(map(tuple, rows), key=repr) for name, rows in found.items()}


@pytest.fixture
def elsewhere(app: Flask, request: pytest.FixtureRequest) -> Flask:
    """The application on an empty database of the other kind."""
    (name,) = (name for name in DIALECTS if name != engine_of(app).dialect.name)
    found: Flask = request.getfixturevalue(f"migrated_{name}")
    empty(found)
    return found


@pytest.fixture
def lms(app: Flask, tmp_path: Path) -> Caller:
    """A service, in an installation that has rows in every table, some of them about who is no more."""
    call = Caller(app, "service", "lms")

    def send(method: str, path: str, **given: Any) -> Any:
        response = call.call(method, f"/api/{path}", **given)
        assert response.status_code in {200, 201, 204}, response.text
        return response.get_json()

    titled = [{"id": name, "title": f"“{name}”, 100 %\n☃", "type": "video"} for name in ("sums", "sets", "rings")]
    module = {"title": "Algebra", "instructorIds": ["ines", "zoe"], "contents": titled}
    send("PUT", "catalog/modules/algebra", json=module)
    send("PUT", "webhooks/mails", json={"url": "https://hooks.example.org/", "types": ["learner.erased"]})
    send("PUT", "webhooks/certificates", json={"url": "https://hooks.example.org/"})
    send("POST", "webhooks/certificates/secret")
    send("POST", "progress", **REPEATED)
    quiz = {"userId": "sam", "contentId": "sets", "progressPercentage": 100, "score": 33.71, "maxScore": 99999.99}
    send(
        "POST", "progress", json=quiz | {"session": "one", "timeSpentSeconds": 7, "position": "p. 3\t\u00e9\U0001f600"}
    )
    for user_id in ("kim", "lee", "eva", "zoe"):
        updates = [{"userId": user_id, "contentId": name, "progressPercentage": 100} for name in ("sums", "sets")]
        send("POST", "progress/batch", json={"updates": updates})
    send("PUT", "progress/kim/algebra/rings/excuse")
    send("PUT", "enrollments/lee/algebra", json={"status": "dropped", "counted": False})
    send("POST", "progress/eva/merge", json={"into": "kim"})
    send("DELETE", "progress/zoe")
    send("PUT", "catalog/modules/algebra", json=module | {"contents": titled[:2]})
    lines = tmp_path / "enrollments.json"
    lines.write_text(
        '{"userId": "max", "moduleId": "algebra", "status": "paused", "enrolledAt": "2025-01-31T00:00:00Z"}\n'
    )
    assert run(app, "import", "--enrollments", lines).exit_code == 0
    assert [name for name, rows in contents(app).items() if not rows] == []
    wait_until_settled(app)
    return call


def test_an_installation_goes_to_the_other_database_and_back_as_it_is(
    app: Flask, elsewhere: Flask, lms: Caller, tmp_path: Path
) -> None:
    before = contents(app)
    dump(app, tmp_path / "there")
    restore(elsewhere, tmp_path / "there")
    assert contents(elsewhere) == before

    dump(elsewhere, tmp_path / "back.gz")
    empty(app)
    restore(app, tmp_path / "back.gz")
    assert contents(app) == before


@settings(max_examples=examples(5), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(actions, min_size=1, max_size=20))
def test_any_history_goes_to_the_other_database(
    history: list[Action], app: Flask, elsewhere: Flask, tmp_path: Path
) -> None:
    world = World(app, Caller(app, "service", "lms"))
    empty(elsewhere)
    for action in history:
        world.perform(action)

    dump(app, tmp_path / "dump")
    restore(elsewhere, tmp_path / "dump")
    assert contents(elsewhere) == contents(app)


def test_every_value_that_a_table_may_have_comes_through(app: Flask, elsewhere: Flask, tmp_path: Path) -> None:
    """The tests of the migrations have such values of every column of every table."""
    extremes: defaultdict[str, list[dict[str, Any]]] = defaultdict(list, {name: [{}] for name in FINE})
    for name, changes in EXTREME_ROWS:
        extremes[name].append(changes)
    for layer in zip_longest(*extremes.values(), fillvalue={}):
        rows = [*STORED, *((name, FINE[name] | changes) for name, changes in zip(extremes, layer, strict=True))]
        rows = [(name, row) for name, row in rows if db.metadata.tables[name] not in NOT_BROUGHT]
        for one in (app, elsewhere):
            empty(one)
        with engine_of(app).begin() as connection:
            for name, row in rows:
                connection.execute(insert(db.metadata.tables[name]), row)

        dump(app, tmp_path / "dump")
        with elsewhere.app_context(), closing(copying.Restoration((tmp_path / "dump").open("rb"))) as restoration:
            assert sum(restoration.run()) == len(rows)
        assert contents(elsewhere) == contents(app)


def read(caller: Caller, **query: Any) -> tuple[list[dict[str, Any]], str]:
    """Return all changes from a cursor on, and the cursor behind them."""
    wait_until_settled(caller.app)
    found = []
    while True:
        page = caller.get("/api/changes", query_string=query).get_json()
        found += page["changes"]
        query["after"] = page["cursor"]
        if not page["more"]:
            return found, page["cursor"]


def finish(caller: Caller, user_id: str) -> None:
    update = {"userId": user_id, "contentId": "sums", "progressPercentage": 100}
    assert caller.post("/api/progress", json=update).status_code == 201


def test_readers_go_on_from_their_cursors_and_lose_nothing(
    app: Flask, elsewhere: Flask, lms: Caller, tmp_path: Path
) -> None:
    half = lms.get("/api/changes?limit=7").get_json()
    dump(app, tmp_path / "dump")
    told, _ = read(lms)
    finish(lms, "ann")  # which the dump does not have
    lost, future = read(lms)
    restore(elsewhere, tmp_path / "dump")

    there = Caller(elsewhere, "service", "lms")
    assert read(there)[0] == told
    finish(there, "bob")
    everything, _ = read(there)
    assert everything[: len(told)] == told
    assert [change["userId"] for change in everything[len(told) :]] == ["bob", "bob"]
    assert not {change["id"] for change in everything[len(told) :]} & {change["id"] for change in lost}
    assert [*half["changes"], *read(there, after=half["cursor"])[0]] == everything
    assert read(there, after=future)[0] == everything[len(told) :], "the reader knows what came before"


def test_a_repeat_gets_the_answer_that_was_given_before(
    app: Flask, elsewhere: Flask, lms: Caller, tmp_path: Path
) -> None:
    first = lms.post("/api/progress", **REPEATED)
    dump(app, tmp_path / "dump")
    restore(elsewhere, tmp_path / "dump")
    before = contents(elsewhere)
    repeat = Caller(elsewhere, "service", "lms").post("/api/progress", **REPEATED)
    assert (repeat.status_code, repeat.get_json()) == (first.status_code, first.get_json())
    assert contents(elsewhere) == before


def test_a_webhook_is_told_once_what_it_was_not_told_before(
    app: Flask, elsewhere: Flask, lms: Caller, tmp_path: Path
) -> None:
    with receiving() as receiver, ExitStack() as made:
        hosts = f"http://127.0.0.1:{receiver.port}"
        urls = [one.config["SQLALCHEMY_DATABASE_URI"] for one in (app, elsewhere)]
        apps = [made.enter_context(application(url, WEBHOOK_HOSTS=hosts)) for url in urls]
        here, there = (Caller(one, "service", "lms") for one in apps)
        hook = {"url": f"{receiver.url}/hook", "types": None}
        assert here.put("/api/webhooks/certificates", json=hook).status_code == 200

        def deliver(caller: Caller) -> None:
            wait_until_settled(caller.app)
            assert run(caller.app, "deliver", "--once").exit_code == 0

        deliver(here)
        before = len(receiver.ids("/hook"))
        finish(here, "ann")
        dump(app, tmp_path / "dump")
        deliver(here)
        restore(elsewhere, tmp_path / "dump")
        finish(there, "bob")
        deliver(there)

    messages = receiver.messages["/hook"][before:]
    assert [message.event["data"]["userId"] for message in messages] == ["ann", "ann"] * 2 + ["bob", "bob"]
    assert messages[0].id == messages[2].id, "it is told again what it was told after the dump, by the same id"
    assert len({message.id for message in messages}) == 4


def test_a_dump_has_one_moment_although_others_write(app: Flask, lms: Caller, tmp_path: Path) -> None:
    def begin(connection: Connection) -> Iterator[copying.Piece]:
        return copying.dump(connection, copying.count(connection), datetime.now(UTC))

    before = dump(app, tmp_path / "before")
    with app.app_context():
        pieces, end = database.read_on(begin)
        lines = next(pieces).text
    finish(lms, "ann")
    with app.app_context():
        lines += b"".join(piece.text for piece in pieces)
        end()
    assert lines.decode().splitlines()[1:-1] == before[1:-1]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "CHUNK_ROWS", 2)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("steps", [1, 2, 9, 20])
def test_a_restore_that_was_interrupted_goes_on(
    steps: int, app: Flask, elsewhere: Flask, lms: Caller, tmp_path: Path
) -> None:
    dump(app, tmp_path / "dump")
    with elsewhere.app_context(), closing(copying.Restoration((tmp_path / "dump").open("rb"))) as restoration:
        assert len(list(islice(restoration.run(), steps))) == steps
    assert reason(elsewhere) == "A dump is restored in part: run `flask progress restore` again."

    restore(elsewhere, tmp_path / "dump")
    assert contents(elsewhere) == contents(app)
    assert Caller(elsewhere).get("/readyz").status_code == 200


@pytest.mark.usefixtures("small_chunks")
def test_of_two_restores_one_gives_way(app: Flask, elsewhere: Flask, lms: Caller, tmp_path: Path) -> None:
    dump(app, tmp_path / "dump")
    with elsewhere.app_context(), closing(copying.Restoration((tmp_path / "dump").open("rb"))) as restoration:
        steps = restoration.run()
        next(steps)
        restore(elsewhere, tmp_path / "dump")
        with pytest.raises(Refused, match="Another restore into this database is under way"):
            next(steps)
    assert contents(elsewhere) == contents(app)


def test_a_database_that_is_not_empty_is_left_alone(app: Flask, lms: Caller, tmp_path: Path) -> None:
    dump(app, tmp_path / "dump")
    before = stored(app)
    assert refusal(app, tmp_path / "dump") == f"The database is not empty: it has {', '.join(contents(app))}."
    assert stored(app) == before


@pytest.mark.usefixtures("small_chunks")
def test_a_dump_that_is_cut_off_can_be_finished_with_the_whole_dump(
    app: Flask, elsewhere: Flask, lms: Caller, tmp_path: Path
) -> None:
    lines = dump(app, tmp_path / "dump.gz")
    zipped = (tmp_path / "dump.gz").read_bytes()
    assert "cut off" in refusal(elsewhere, tmp_path / "cut", zipped[: len(zipped) // 2])
    assert "cut off" in refusal(elsewhere, tmp_path / "cut", zipped[:-1])
    text = "\n".join(lines)
    for cut in (text, text[: text.rindex("\n")], text[: text.rindex("\n") + 1], text[: len(text) // 2]):
        assert "cut off" in refusal(elsewhere, tmp_path / "cut", cut)
    assert reason(elsewhere).startswith("A dump is restored in part")

    restore(elsewhere, tmp_path / "dump.gz")
    assert contents(elsewhere) == contents(app)


def change_first(lines: list[str]) -> None:
    number, place, _, *rest = json.loads(lines[2])
    lines[2] = json.dumps([number, place, "module.lost", *rest])


def change_last(lines: list[str]) -> None:
    lines[-2] = lines[-2].replace('"one"', '"two"')


def change_type(lines: list[str]) -> None:
    lines[2] = lines[2].replace("[", '["', 1).replace(",", '",', 1)


def leave_out(lines: list[str]) -> None:
    del lines[3]


def twice(lines: list[str]) -> None:
    lines.insert(3, lines[2])


def time_without_zone(lines: list[str]) -> None:
    lines[2] = lines[2].replace("Z", "")


def add(lines: list[str]) -> None:
    lines.append("[]")


def another_table(lines: list[str]) -> None:
    lines[1] = lines[1].replace('"changes"', '"marks"')


def another_column(lines: list[str]) -> None:
    lines[1] = lines[1].replace('"type"', '"kind"')


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (change_first, "Rows behind line 1 cannot be stored: "),
        (change_type, "Line 3 is not of a dump: Expected `int`, got `str` - at `$[0]`."),
        (time_without_zone, "Line 3 is not of a dump: "),
        (leave_out, "Line 2"),
        (twice, "Rows behind line 1 cannot be stored: "),
        (another_table, "Line 2 does not begin the rows of a table of this version."),
        (another_column, "Line 2 does not begin the rows of a table of this version."),
        (change_last, "The dump has changed since it was made: "),
        (add, "The dump has changed since it was made: "),
    ],
)
def test_a_dump_that_was_changed_is_refused(
    change: Callable[[list[str]], None], told: str, app: Flask, elsewhere: Flask, lms: Caller, tmp_path: Path
) -> None:
    lines = dump(app, tmp_path / "dump")
    change(lines)
    assert refusal(elsewhere, tmp_path / "dump", "\n".join([*lines, ""])).startswith(told)
    assert reason(elsewhere).startswith("A dump is restored in part")


@pytest.mark.usefixtures("small_chunks")
def test_a_restore_does_not_go_on_with_another_dump(app: Flask, elsewhere: Flask, lms: Caller, tmp_path: Path) -> None:
    lines = dump(app, tmp_path / "dump")
    assert "cut off" in refusal(elsewhere, tmp_path / "cut", "\n".join(lines[:20]))
    empty(app)
    for others in (lines[:2] + lines[3:], dump(app, tmp_path / "another")):
        told = refusal(elsewhere, tmp_path / "other", "\n".join([*others, ""]))
        assert told.startswith("The database has begun to be restored from another dump: ")


@pytest.mark.parametrize(
    "text",
    ["", "\n", "{}\n", "[1]\n", '{"line":"dump"}\n', '{"modules": []}\n', "id,title\n", b"\x1f\x8b\n", b"\xff\n"],
)
def test_what_is_no_dump_is_refused(text: str | bytes, app: Flask, tmp_path: Path) -> None:
    before = stored(app)
    assert refusal(app, tmp_path / "file", text) == "This is no dump."
    assert stored(app) == before


def test_a_dump_of_another_schema_says_which_version_restores_it(
    app: Flask, elsewhere: Flask, lms: Caller, tmp_path: Path
) -> None:
    lines = dump(app, tmp_path / "dump")
    lines[0] = lines[0].replace(f'"schema":"{NEWEST}"', '"schema":"0001"')
    way = f"restore it with version {version('progress-service')}, and then run `flask db upgrade` of this one"
    told = refusal(elsewhere, tmp_path / "dump", "\n".join([*lines, ""]))
    assert told == f"The dump is of schema 0001, and this version of {NEWEST}: {way}."


def test_a_database_with_another_schema_is_neither_dumped_nor_filled(
    empty_database_url: str, app: Flask, elsewhere: Flask, lms: Caller, tmp_path: Path
) -> None:
    dump(app, tmp_path / "dump")
    later = f"The schema is 9999, and this version is of {NEWEST}: install a later one."
    with at(app, "9999"):
        refused = run(app, "dump", tmp_path / "later")
        assert (refused.exit_code, refused.stderr) == (REFUSED, f"Error: {later}\n")
        assert not (tmp_path / "later").exists()
    with at(elsewhere, "9999"):
        assert refusal(elsewhere, tmp_path / "dump") == later
    with application(empty_database_url) as bare:
        assert refusal(bare, tmp_path / "dump") == "The database has no schema yet: run `flask db upgrade`."


def test_a_dump_goes_through_pipes(app: Flask, elsewhere: Flask, lms: Caller, tmp_path: Path) -> None:
    written = run(app, "dump", "-")
    lines = written.stdout_bytes
    assert lines.decode().splitlines()[1:-1] == dump(app, tmp_path / "dump")[1:-1]
    restored = elsewhere.test_cli_runner().invoke(args=["progress", "restore", "-"], input=lines)
    assert restored.exit_code == 0, restored.output
    assert contents(elsewhere) == contents(app)


def test_a_restore_tells_of_figures_that_were_wrong_before(
    app: Flask, elsewhere: Flask, lms: Caller, tmp_path: Path
) -> None:
    with engine_of(app).begin() as connection:
        connection.execute(text("UPDATE modules SET total_weight = 7"))
    dump(app, tmp_path / "dump")
    result = run(elsewhere, "restore", tmp_path / "dump")
    assert result.exit_code == 1
    assert "module algebra: total_weight is 7, recounted 2" in result.stdout
    assert Caller(elsewhere).get("/readyz").status_code == 200
