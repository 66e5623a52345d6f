"""A module's statistics, put together from counts; every figure names its population in the contract."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from progress_service.analytics.queries import ContentCounts, LearnerGroup, ModuleTitle
from progress_service.calculations import DROPPED, STATUSES, rounded_down


def statistics_document(
    module: ModuleTitle, groups: Sequence[LearnerGroup], contents: Sequence[ContentCounts]
) -> dict[str, Any]:
    """Show a module's statistics from groups of its learners and the counts of its contents."""
    by_status = {status: sum(g.learners for g in groups if g.status == status) for status in STATUSES}
    enrolled, started = sum(by_status.values()), sum(group.started for group in groups)
    total_seconds = sum(group.time_spent_seconds for group in groups)
    staying = [group for group in groups if group.status != DROPPED]
    population = sum(group.learners for group in staying)
    percentages = whole_percentages(staying, module.total_weight)
    weighted_sum = sum(group.weighted_sum * group.learners for group in staying)
    return {
        "moduleId": module.id,
        "title": module.title,
        "learners": {"enrolled": enrolled, **by_status, "started": started, "notStarted": enrolled - started},
        "completionRate": rounded_down(100 * by_status["completed"], population),
        "averageProgressPercentage": rounded_down(weighted_sum, population * (module.total_weight or 1)),
        "medianProgressPercentage": median(percentages),
        "progressDistribution": [sum(percentages[first : first + 10]) for first in range(0, 101, 10)],
        "timeSpent": {
            "totalSeconds": total_seconds,
            "averageSecondsPerLearner": rounded_down(total_seconds, started),
        },
        "contents": [_content(content) for content in contents],
        "byType": [
            _type(kind, [content for content in contents if content.type == kind])
            for kind in dict.fromkeys(content.type for content in contents)
        ],
    }


def whole_percentages(groups: Iterable[LearnerGroup], total_weight: int) -> list[int]:
    """Count learners by the whole per cent of their progress, from 0 to 100."""
    counts = [0] * 101
    for group in groups:
        counts[group.weighted_sum // (total_weight or 1)] += group.learners
    return counts


def median(counts: Sequence[int]) -> int | None:
    """Return the median of values given by their counts: the lower of two middle ones, None where there are none."""
    half = (sum(counts) + 1) // 2
    return next((value for value, reached in enumerate(accumulate(counts)) if reached >= half > 0), None)


def _content(counts: ContentCounts) -> dict[str, Any]:
    return {
        "contentId": counts.content_id,
        "title": counts.title,
        "type": counts.type,
        "section": counts.section,
        "weight": counts.weight,
        "started": counts.started,
        "completed": counts.completed,
        "completionRate": rounded_down(100 * counts.completed, counts.started),
        "averageTimeSpentSeconds": rounded_down(counts.time_spent_seconds, counts.started),
        "averageScorePercentage": rounded_down(counts.score_hundredths, 100 * counts.scored),
    }


def _type(kind: str, contents: Sequence[ContentCounts]) -> dict[str, Any]:
    started = sum(content.started for content in contents)
    completed = sum(content.completed for content in contents)
    return {
        "type": kind,
        "contents": len(contents),
        "started": started,
        "completed": completed,
        "completionRate": rounded_down(100 * completed, started),
        "averageTimeSpentSeconds": rounded_down(sum(content.time_spent_seconds for content in contents), started),
    }
