"""The report of a module: the figures of the other routes, as a page for people that needs nothing else."""

import os
import re
import subprocess
import sys
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from progress_service.analytics import pictures
from tests.callers import KEY, Caller
from tests.conftest import Callers, Publish

PATH = "/api/progress/stats/algebra/report"
SCRIPT = """<script>alert("1")</script> & 'quotes' </title></style> \N{PARTY POPPER}"""
NOTHING = "\N{EN DASH}"


class Page(HTMLParser):
    """A page, read as a browser reads it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        """The cells of each row of a table."""
        self.figures: dict[str, str] = {}
        """The head figures, by their names."""
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "style":
            return
        self.texts.append(data)
        if inside == "dt":
            self.figures[data] = ""
        elif inside == "dd" and not list(self.figures.values())[-1]:
            self.figures[list(self.figures)[-1]] = data
        if "tbody" in self.open and inside != "small" and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def report(caller: Caller, path: str = PATH) -> Page:
    response = caller.get(path)
    assert response.status_code == 200, response.text
    return Page(response.text)


def percent(value: float | None, form: str = "g") -> str:
    return NOTHING if value is None else f"{value:{form}}\N{NO-BREAK SPACE}%"


def bars(page: Page) -> list[tuple[str, str]]:
    """The kind of each path of bars beside the contents, and how it is drawn."""
    paths = [(attributes["class"] or "", attributes["d"] or "") for tag, attributes in page.tags if tag == "path"]
    return [path for path in paths if path[0] in ("completed", "started", "stalled")]


def send(service: Caller, *updates: dict[str, Any]) -> None:
    response = service.post("/api/progress/batch", json={"updates": updates})
    assert response.status_code == 200, response.text


def ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


@pytest.fixture
def algebra(publish: Publish, service: Callers) -> None:
    """A module with learners who are well on, done, stalled, and not begun; and another module."""
    contents: list[dict[str, Any]] = [
        {"id": "sets", "section": "Basics"},
        {"id": "maps", "section": "Basics", "weight": 2},
        {"id": "rings"},
    ]
    publish("algebra", contents, title="Algebra for all")
    publish("biology", ["cells"])
    done = [{"userId": "kim", "contentId": one["id"], "progressPercentage": 100} for one in contents]
    send(
        service(),
        *({**update, "occurredAt": ago(3)} for update in done),
        {"userId": "lea", "contentId": "sets", "progressPercentage": 100, "occurredAt": ago(30)},
        {"userId": "lea", "contentId": "maps", "progressPercentage": 33, "occurredAt": ago(9)},
        {"userId": "sam", "contentId": "sets", "progressPercentage": 70, "occurredAt": ago(1)},
        {"userId": "tom", "contentId": "cells", "progressPercentage": 70, "occurredAt": ago(70)},
    )
    for user, status in (("eva", "active"), ("max", "dropped")):
        service().put(f"/api/enrollments/{user}/algebra", json={"status": status, "enrolledAt": ago(20)})


@pytest.mark.usefixtures("algebra")
def test_its_figures_are_those_of_the_statistics_and_the_timeline(instructor: Callers) -> None:
    begun = datetime.now(UTC).date()
    page = report(instructor())

    statistics = instructor().get("/api/progress/stats/algebra").get_json()
    days = {"from": begun - timedelta(days=59), "to": datetime.now(UTC).date()}
    timeline = instructor().get("/api/progress/stats/algebra/timeline", query_string=days).get_json()
    assert statistics["learners"]["enrolled"] == 5
    assert page.figures == {
        "Enrolled": "5",
        "Started": "3",
        "Completed": "1",
        "Completion rate": percent(statistics["completionRate"]),
        "Average progress": percent(statistics["averageProgressPercentage"]),
        "Median progress": percent(statistics["medianProgressPercentage"]),
    }
    assert "3 active, 0 paused, 1 dropped" in page.text
    assert "2 have not started" in page.text
    for place, one in enumerate(statistics["contents"]):
        section = one["section"] or ""
        rate = percent(one["completionRate"], ".2f")
        numbers = [str(one["started"]), str(one["completed"]), rate, str(one["stalled"])]
        assert [one["title"], section, *([""] if place == 0 else []), *numbers] in page.rows
    *reached, complete = statistics["progressDistribution"]
    for place, count in enumerate(reached):
        assert [f"{10 * place} to below {10 * place + 10} %", str(count)] in page.rows
    assert ["100 %", str(complete)] in page.rows
    shown = 0
    for day in timeline["days"]:  # one more than are shown, where a day has ended meanwhile
        date = datetime.fromisoformat(day["date"])
        names = "activeLearners", "contentsCompleted", "enrollmentsCompleted"
        shown += [f"{date.day} {date:%b}", *(str(day[name]) for name in names)] in page.rows
    assert shown == 60


@pytest.mark.usefixtures("algebra")
def test_its_bars_are_as_long_as_the_figures_of_the_rows(instructor: Callers) -> None:
    page = report(instructor())

    (box,) = (attributes["viewbox"] for tag, attributes in page.tags if attributes.get("preserveaspectratio"))
    assert box == "-1 0 4 3"
    assert bars(page) == [
        ("completed", "M0 0.5H2M0 1.5H1M0 2.5H1"),
        ("started", "M2 0.5H3M1 1.5H2M1 2.5H1"),
        ("stalled", "M0 0.5H0M-1 1.5H0M0 2.5H0"),
    ]


def test_a_picture_draws_any_number_of_contents_with_three_elements(service: Callers, publish: Publish) -> None:
    publish("algebra", [f"c{place}" for place in range(121)])

    page = report(service())

    assert [name for name, _ in bars(page)] == ["completed", "started", "stalled"] * 3
    assert [path.count("M") for _, path in bars(page)] == [60] * 6 + [1] * 3
    assert [tag for tag, _ in page.tags if tag in ("svg", "g", "rect")] == ["svg"] * 3


@pytest.mark.usefixtures("algebra")
def test_who_needs_help_is_who_is_inactive_and_counted(instructor: Callers, service: Callers) -> None:
    send(service(), {"userId": "ida", "contentId": "sets", "occurredAt": ago(40)})
    service().put("/api/enrollments/ida/algebra", json={"counted": False})

    page = report(instructor())

    listed = [row for row in page.rows if row and row[0] in ("eva", "ida", "kim", "lea", "max", "sam", "tom")]
    day = datetime.fromisoformat(service().get("/api/enrollments/lea/algebra").get_json()["lastActivityAt"])
    lea = ["lea", "Maps", f"{day.day} {day:%b} {day.year}", percent(41.5, ".2f")]
    assert listed == [lea, ["eva", "", "never", percent(0, ".2f")]]
    assert "for 7 days or more: 2." in page.text
    assert "for 1 day or more: 3." in report(instructor(), f"{PATH}?stalledDays=1").text
    assert "has been inactive for 60 days or more." in report(instructor(), f"{PATH}?stalledDays=60").text


def test_it_names_the_twenty_who_were_active_last_and_counts_all(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])
    publish("biology", ["maps"])
    updates = [{"userId": f"u{place:02}", "contentId": "sets", "occurredAt": ago(10 + place)} for place in range(23)]
    send(service(), *updates)

    page = report(service())

    assert [row[0] for row in page.rows if row and row[0].startswith("u")] == [f"u{place:02}" for place in range(20)]
    assert "for 7 days or more: 23, of whom these 20 were active last." in page.text


def test_a_content_that_is_retired_is_named_by_its_id(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets", "maps"])
    send(service(), {"userId": "sam", "contentId": "sets", "occurredAt": ago(10)})
    publish("algebra", ["maps"])

    (sam,) = (row for row in report(service()).rows if row and row[0] == "sam")

    assert sam[1] == "sets"


@pytest.mark.parametrize(
    ("contents", "enrolled"),
    [([], 0), (["sets"], 0), ([{"id": "sets", "weight": 0}], 0), ([{"id": "sets", "weight": 0}], 1)],
    ids=["empty", "without learners", "without weight", "without weight, with a learner"],
)
def test_what_has_no_value_is_a_dash(contents: list[Any], enrolled: int, service: Callers, publish: Publish) -> None:
    publish("algebra", contents)
    for place in range(enrolled):
        service().put(f"/api/enrollments/u{place}/algebra", json={"enrolledAt": ago(10)})

    page = report(service())

    assert page.figures["Average progress"] == page.figures["Median progress"] == NOTHING
    assert page.figures["Completion rate"] == (percent(0) if enrolled else NOTHING)
    assert [row for row in page.rows if row and row[0] == "Sets"] == [["Sets", "", "", "0", "0", NOTHING, "0"]] * bool(
        contents
    )
    assert [row[3] for row in page.rows if row and row[0] == "u0"] == [NOTHING] * enrolled
    assert "to below" not in page.text, "there is no distribution to show"


def test_titles_are_shown_as_they_are_written(service: Callers, publish: Publish) -> None:
    content = {"id": "sets", "title": SCRIPT, "section": SCRIPT}
    publish("algebra", [content], title=SCRIPT)
    send(service(), {"userId": "o'neill", "contentId": "sets", "occurredAt": ago(10)})

    page = report(service())

    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "img", "link"})
    places = ["title", "heading", "content", "section", "section on a phone", "last worked on", "the same on a phone"]
    assert page.text.count(SCRIPT) == len(places)
    assert ["o'neill", SCRIPT] in [row[:2] for row in page.rows]


@pytest.mark.usefixtures("algebra")
def test_it_needs_no_script_and_fetches_nothing(instructor: Callers) -> None:
    response = instructor().get(PATH)

    page = Page(response.text)
    names = {name for _, attributes in page.tags for name in attributes}
    assert not {name for name in names if name.startswith("on")} | names & {"href", "src", "style", "xlink:href"}
    (style,) = re.findall("<style>(.*?)</style>", response.text, re.S)
    assert not re.search("url|@import|@font-face", style)
    assert response.content_type == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'"
    assert "script-src" not in policy
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.usefixtures("algebra")
def test_refusals_are_those_of_the_statistics(service: Callers, student: Callers) -> None:
    assert service().get("/api/progress/stats/alchemy/report").status_code == 404
    assert service().get(f"{PATH}?stalledDays=0").status_code == 400
    assert service().get(f"{PATH}?days=7").status_code == 400
    assert student().get(PATH).status_code == 403
    asked = service().call("HEAD", PATH)
    assert (asked.status_code, asked.data) == (200, b"")
    assert asked.content_type == "text/html; charset=utf-8"


@pytest.mark.usefixtures("algebra")
def test_the_command_prints_the_same_page(app: Flask, service: Callers) -> None:
    path = f"{PATH}?stalledDays=30"
    before = report(service(), path)
    printed = app.test_cli_runner().invoke(args=["progress", "report", "algebra", "--stalled-days", "30"])
    after = report(service(), path)  # which may be of the next day

    assert printed.exit_code == 0
    page = Page(printed.stdout)
    assert (page.figures, page.rows) in [(shown.figures, shown.rows) for shown in (before, after)]
    unknown = app.test_cli_runner().invoke(args=["progress", "report", "alchemy"])
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "There is no module alchemy." in unknown.stderr


@pytest.mark.usefixtures("algebra")
def test_many_at_once_get_the_same_page(service: Callers) -> None:
    with ThreadPoolExecutor(16) as threads:
        pages = list(threads.map(lambda _: service().get(PATH).text, range(32)))

    seen = {re.sub(r'as of <time datetime="([-\d]+).*?</time>', r"as of \1", page) for page in pages}
    days = {day for page in seen for day in re.findall(r"as of ([-\d]+)", page)}
    assert len(seen) == len(days) > 0, "there is a page of each day"


def test_a_process_that_shows_no_report_does_not_load_the_plotting_library() -> None:
    program = f"""
import sys
from progress_service import create_app
from progress_service.analytics import pictures
create_app({{"SQLALCHEMY_DATABASE_URI": "sqlite://", "JWT_SECRET_KEY": {KEY!r}}})
before = "pygal" in sys.modules
pictures.columns([1], ["day"], 100)
after = "pygal" in sys.modules
try:
    import nothing_of_this_name
except ModuleNotFoundError:
    print(before, after)
"""
    ran = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)

    assert ran.stdout.split() == ["False", "True"], ran.stderr


def test_a_picture_is_the_same_where_another_xml_library_is_installed(tmp_path: Path) -> None:
    library = tmp_path / "lxml"
    library.mkdir()
    (library / "etree.py").touch()
    program = "from progress_service.analytics import pictures; print(pictures.columns([1], ['day'], 100))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)

    assert ran.stdout == f"{pictures.columns([1], ['day'], 100)}\n", ran.stderr


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0k"),
        (1999, "1.9k"),
        (9_999, "9.9k"),
        (10_000, "10k"),
        (999_999, "999k"),
        (1_000_000, "1.0M"),
        (12_345_678, "12M"),
    ],
)
def test_a_picture_writes_counts_in_few_characters_and_rounds_none_up(count: int, written: str) -> None:
    assert pictures.short(count) == written
