"""Statistics, put together from what the groups of a module add up to; every figure's population is in the contract."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import accumulate
from typing import Any

from progress_service.analytics.queries import Groups, TitledModule
from progress_service.analytics.schemas import ListedLearnerSchema
from progress_service.calculations import DROPPED, STATUSES, Enrollment, Module, rounded_down
from progress_service.documents import ListedContent, content_document, enrollment_document, grouped
from progress_service.tallies import CONTENT, NOTHING, PERCENTAGE, STATUS, Counts


def statistics_document(
    titled: TitledModule, contents: Sequence[ListedContent], groups: Groups, stalled: Mapping[str, int]
) -> dict[str, Any]:
    """Show a module's statistics."""
    by_status = {status: groups.get(STATUS, {}).get(status, NOTHING) for status in STATUSES}
    everybody = _sum(by_status.values())
    staying = _sum(counts for status, counts in by_status.items() if status != DROPPED)
    # Without any weight nobody has a percentage.
    by_percentage = groups.get(PERCENTAGE, {}) if titled.module.total_weight else {}
    percentages = [by_percentage.get(str(percentage), NOTHING).learners for percentage in range(101)]
    shown = [(content, groups.get(CONTENT, {}).get(content.id, NOTHING)) for content in contents]
    return {
        "moduleId": titled.id,
        "title": titled.title,
        "learners": {
            "enrolled": everybody.learners,
            **{status: counts.learners for status, counts in by_status.items()},
            "started": everybody.started,
            "notStarted": everybody.learners - everybody.started,
        },
        "completionRate": rounded_down(100 * by_status["completed"].learners, staying.learners),
        "averageProgressPercentage": rounded_down(staying.weighted_sum, staying.learners * titled.module.total_weight),
        "medianProgressPercentage": median(percentages),
        "progressDistribution": [sum(percentages[first : first + 10]) for first in range(0, 101, 10)],
        "timeSpent": {
            "totalSeconds": everybody.time_spent_seconds,
            "averageSecondsPerLearner": rounded_down(everybody.time_spent_seconds, everybody.started),
        },
        "contents": [_content(content, counts, stalled.get(content.id, 0)) for content, counts in shown],
        "byType": [
            _type(kind, [counts for _, counts in ones])
            for kind, ones in grouped(shown, lambda one: one[0].type).items()
        ],
    }


def median(counts: Sequence[int]) -> int | None:
    """Return the median of values given by their counts: the lower of two middle ones, None where there are none."""
    half = (sum(counts) + 1) // 2
    return next((value for value, reached in enumerate(accumulate(counts)) if reached >= half > 0), None)


def timeline_document(first: date, last: date, days: Mapping[str, Counts]) -> dict[str, Any]:
    """Show every day from the first to the last."""
    dates = (first + timedelta(days=days_on) for days_on in range((last - first).days + 1))
    return {"days": [_day(day, days.get(str(day), NOTHING)) for day in dates]}


def listed_learner(enrollment: Enrollment, module: Module) -> dict[str, Any]:
    """Show a learner of a roster."""
    return {
        **enrollment_document(enrollment, module),
        "lastContentId": enrollment.last_content_id,
        "counted": enrollment.counted,
    }


def roster_csv(pages: Iterable[Iterable[Enrollment]], module: Module) -> Iterator[str]:
    """Write the learners of a roster as a table (RFC 4180), page by page."""
    names = list(ListedLearnerSchema().fields)
    yield _lines([names])
    for page in pages:
        documents = (listed_learner(enrollment, module) for enrollment in page)
        yield _lines([[_cell(document[name]) for name in names] for document in documents])


def _lines(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def _sum(parts: Iterable[Counts]) -> Counts:
    return Counts(*map(sum, zip(NOTHING, *parts, strict=True)))


def _content(content: ListedContent, counts: Counts, stalled: int) -> dict[str, Any]:
    return {
        **content_document(content),
        **_outcome(counts),
        "averageScorePercentage": rounded_down(counts.score_hundredths, 100 * counts.scored),
        "stalled": stalled,
    }


def _type(kind: str, counts: Sequence[Counts]) -> dict[str, Any]:
    return {"type": kind, "contents": len(counts), **_outcome(_sum(counts))}


def _outcome(counts: Counts) -> dict[str, Any]:
    """Show what became of contents, over the learners who started them."""
    return {
        "started": counts.started,
        "completed": counts.completed,
        "completionRate": rounded_down(100 * counts.completed, counts.started),
        "averageTimeSpentSeconds": rounded_down(counts.time_spent_seconds, counts.started),
    }


def _day(day: date, counts: Counts) -> dict[str, Any]:
    return {
        "date": day,
        "activeLearners": counts.learners,
        "contentsStarted": counts.started,
        "contentsCompleted": counts.completed,
        "enrollmentsCompleted": counts.enrollments_completed,
        "timeSpentSeconds": counts.time_spent_seconds,
    }
