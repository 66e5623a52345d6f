"""Learners who have worked with the demo catalog for two months, always the same, up to yesterday.

Days are counted back from today. No learner's last day was seven days ago, so that the same learners have stalled at
every hour of a day.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path
from random import Random
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select, update

from progress_service.calculations import COMMAND, DROPPED, PAUSED, POINT, Actor, Update
from progress_service.catalog.schemas import CatalogSchema
from progress_service.changes.queries import end
from progress_service.changes.settings import Settings
from progress_service.store import corrections, publishing, recorder, webhooks
from progress_service.store.journal import ENROLLMENT_COMPLETED
from progress_service.store.learning import EnrollmentChange, EnrollmentKey
from progress_service.store.models import Enrollment, ProgressRecord
from progress_service.store.publishing import PublishedContent, PublishedModule
from progress_service.web.openapi.document import EXAMPLES
from progress_service.web.validation import parse_json

CATALOG = Path(__file__).parent.with_name("demo_catalog.json")
HOOK = "https://hooks.example.org/progress"
LMS = Actor("lms", "service")
MOST_POINTS, PASSED, FAILED = 20, (14, 20), (6, 13)
"""The most points of a quiz, and the points of those who pass and who fail."""
LEARNERS = (
    "aiko alice amir anna ben carla chen dana david elif emil fatima felix grace hana hugo ida ivan jana jonas"
    " kim lars leon lina luca maria max mia nils noor olga omar paul priya rosa sven tara tom yara zoe"
)


class Fate(NamedTuple):
    """How far some learners come in a module."""

    learners: int
    contents: int
    """How many contents they begin; all but the last are completed."""
    percentages: tuple[int, int]
    """How far they come in the last, at least and at most; a quiz is failed below 100."""
    silent_days: tuple[int, int]
    """The fewest and the most days since they were there."""
    status: str | None = None
    """What their enrollment becomes the day after."""


ALL = (100, 100)
FATES = {
    "sql-basics": (
        Fate(14, 4, ALL, (2, 40)),
        Fate(2, 4, (0, 0), (1, 4)),
        Fate(5, 3, (20, 80), (1, 5)),
        Fate(3, 2, (30, 70), (1, 5)),
        Fate(6, 3, (10, 60), (9, 30)),
        Fate(2, 4, (0, 0), (9, 20)),
        Fate(2, 3, (50, 90), (12, 20), PAUSED),
        Fate(4, 2, (10, 40), (25, 45), DROPPED),
        Fate(2, 0, ALL, (9, 30)),
    ),
    "git-basics": (
        Fate(5, 4, ALL, (3, 25)),
        Fate(4, 3, ALL, (2, 20)),
        Fate(5, 2, (20, 70), (1, 5)),
        Fate(4, 2, (40, 90), (9, 30)),
        Fate(1, 1, (60, 60), (15, 30), DROPPED),
    ),
}
"""What becomes of the learners of each module."""


def fill(connection: Connection, now: datetime) -> None:
    """Publish the demo catalog and record what its learners have done, unless the database has learners."""
    if connection.execute(select(Enrollment.user_id).limit(1)).first():
        return
    catalog = CatalogSchema().load(parse_json(CATALOG.read_bytes()))
    modules = [PublishedModule(**module) for module in catalog["modules"]]
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    updates, idle, changed = [*_of_sam(today), *_of_ines(today)], list[EnrollmentChange](), list[EnrollmentChange]()
    random = Random("progress")
    for module in modules:
        shuffled = sorted(LEARNERS.split(), key=lambda _: random.random())
        fates = [fate for fate in FATES[module.id] for _ in range(fate.learners)]
        for learner, fate in zip(shuffled, fates, strict=False):
            last = today - timedelta(days=_between(random, *fate.silent_days))
            updates += _sittings(learner, module.contents[: fate.contents], fate.percentages, last, random)
            if not fate.contents:
                idle.append(EnrollmentChange(learner, module.id, enrolled_at=last, told_at=last))
            if fate.status:
                changed.append(EnrollmentChange(learner, module.id, fate.status, told_at=last + timedelta(days=1)))
    if signer := Settings.current().signer:
        hook = {"url": HOOK, "types": [ENROLLMENT_COMPLETED], "active": True, "secret": signer.make().encrypted}
        webhooks.make(connection, "certificates", end(connection), **hook)
    publishing.publish_all(connection, modules, now=now, by=COMMAND)
    recorder.enroll(connection, idle, now=now, by=LMS)
    recorder.record(connection, sorted(updates, key=attrgetter("occurred_at")), auto_enroll=True, now=now)
    recorder.enroll(connection, changed, now=now, by=LMS)
    corrections.excuse(connection, EnrollmentKey("yara", "sql-basics"), "sql-joins", by=Actor("ada", "admin"), now=now)
    # The record that the examples of the API name is one of sam's.
    named = UUID(json.loads(EXAMPLES.read_bytes())["parameters"]["recordId"])
    of_sam = ProgressRecord.user_id == "sam", ProgressRecord.content_id == "sql-select"
    connection.execute(update(ProgressRecord).where(*of_sam).values(id=named))


def _sittings(
    learner: str, contents: Sequence[PublishedContent], percentages: tuple[int, int], last_day: datetime, random: Random
) -> Iterator[Update]:
    """Invent what a learner's player reports, sitting by sitting, up to their last day."""
    sittings = list[Update]()
    for place, content in enumerate(contents, 1):
        goal = _between(random, *percentages) if place == len(contents) else 100
        count = _between(random, 1, 1 + content.weight)
        for number in range(1, count + 1):
            sitting = Update(
                learner,
                content.id,
                last_day,
                goal * number // count,
                time_spent_seconds=_between(random, 240, 1800),
                session=f"{content.id}-{number}",
                by=LMS,
            )
            if content.passing_score is not None:
                points = _between(random, *(PASSED if goal == 100 and number == count else FAILED))
                sitting = sitting._replace(progress_percentage=100, score=points * POINT, max_score=MOST_POINTS * POINT)
            sittings.append(sitting)
    span, last = _between(random, len(sittings), 2 * len(sittings)), len(sittings) - 1
    days = (last_day - timedelta(days=span * (last - place) // max(1, last)) for place in range(len(sittings)))
    times = sorted(day + timedelta(hours=7, seconds=_between(random, 0, 13 * 3600)) for day in days)
    for sitting, at in zip(sittings, times, strict=True):
        yield sitting._replace(occurred_at=at)


def _of_sam(today: datetime) -> Iterator[Update]:
    """Sam has seen the first video, is reading, and has begun the other module."""
    for days, content_id, percentage, seconds, position in (
        (12, "sql-welcome", 100, 540, "00:09:00"),
        (9, "git-commits", 100, 600, "00:10:00"),
        (8, "git-maze", 30, 900, "level 3"),
        (2, "sql-select", 60, 480, "page 6"),
    ):
        at = today - timedelta(days=days) + timedelta(hours=16)
        yield Update("sam", content_id, at, percentage, seconds, position=position, by=Actor("sam", "student"))


def _of_ines(today: datetime) -> Iterator[Update]:
    """Ines has tried what she teaches, and does not count among the learners."""
    for content_id in ("sql-welcome", "sql-select"):
        yield Update("ines", content_id, today - timedelta(days=50), 100, 300, by=Actor("ines", "instructor"))


def _between(random: Random, least: int, most: int) -> int:
    """Draw a whole number. Of Random, only `random` draws the same in every version of Python."""
    return least + int(random.random() * (most - least + 1))
