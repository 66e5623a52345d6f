"""The report of a module: its statistics for people, as one HTML page that needs no script and fetches nothing."""

from base64 import b64encode
from datetime import date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from flask import render_template
from markupsafe import Markup
from sqlalchemy import Connection

from progress_service.analytics import pictures, queries, roster
from progress_service.analytics.documents import (
    ContentStatisticsDocument,
    DayDocument,
    ListedLearnerDocument,
    StatisticsDocument,
    TimelineDocument,
)
from progress_service.analytics.roster import LAST_ACTIVITY, Filters, Order

DAYS = 60
"""How many days of activity a report shows, today included."""
MOST_LEARNERS = 20
"""How many of the learners who need help a report names: those who were active last."""
MOST_ROWS = 60
"""How many contents share a picture, which must not be longer than a page of A4."""
NOTHING = "\N{EN DASH}"
"""What stands for a missing value."""

STYLE = Path(__file__).with_name("templates").joinpath("report.css").read_text()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a browser may do with the page: nothing but apply its style."""


class Report(NamedTuple):
    """What a report shows, of one snapshot."""

    now: datetime
    stalled_days: int
    statistics: StatisticsDocument
    days: list[DayDocument]
    has_weight: bool
    """Whether the module has a percentage."""
    inactive: list[ListedLearnerDocument]
    """The first of the learners who need help."""
    all_inactive: int


def find(connection: Connection, module_id: str, now: datetime, stalled_days: int) -> Report | None:
    """Find what the report of a module shows."""
    since = now - timedelta(days=stalled_days)
    found = queries.statistics(connection, module_id, since)
    if found is None:
        return None
    module = found.module.module
    first, last = now.date() - timedelta(days=DAYS - 1), now.date()
    inactive = Filters(inactive_since=since, only_counted=True)
    learners = roster.page(connection, module_id, inactive, Order.named(f"-{LAST_ACTIVITY}"), None, MOST_LEARNERS)
    return Report(
        now,
        stalled_days,
        StatisticsDocument.of(found),
        TimelineDocument.of(first, last, queries.days(connection, module_id, first, last)).days,
        module.total_weight > 0,
        [ListedLearnerDocument.of(learner, module) for learner in learners],
        roster.count(connection, module_id, inactive),
    )


def written(report: Report) -> str:
    """Write a report as a page."""
    statistics, days = report.statistics, report.days
    contents = statistics.contents
    longest = max((one.stalled for one in contents), default=0), max((one.started for one in contents), default=0)
    groups = [contents[start : start + MOST_ROWS] for start in range(0, len(contents), MOST_ROWS)]
    dates = [day_of(day.day) for day in days]
    return render_template(
        "report.html",
        report=report,
        statistics=statistics,
        style=Markup(STYLE),
        groups=[(group, _rows(group, longest)) for group in groups],
        titles={content.content_id: content.title for content in contents},
        percentages=pictures.columns(
            statistics.progress_distribution, [str(percentage) for percentage in range(0, 101, 10)], 220
        ),
        active=pictures.columns([day.active_learners for day in days], dates, 110, dates[::14]),
        completed=pictures.columns([day.contents_completed for day in days], dates, 110, dates[::14]),
        number=number,
        percent=percent,
        day_of=day_of,
    )


def _rows(contents: list[ContentStatisticsDocument], longest: tuple[int, int]) -> Markup:
    completed, started, stalled = zip(*((one.completed, one.started, one.stalled) for one in contents), strict=True)
    return pictures.rows(completed, started, stalled, longest)


def number(value: float | None) -> str:
    """Write a number for people; without a value a dash."""
    return NOTHING if value is None else f"{value:,}"


def percent(value: float | None, form: str = "g") -> str:
    """Write a percentage for people; without a value a dash."""
    return NOTHING if value is None else f"{value:{form}}\N{NO-BREAK SPACE}%"


def day_of(day: date) -> str:
    """Write a day without its year."""
    return f"{day.day} {day:%b}"
