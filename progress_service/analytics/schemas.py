"""The schemas of queries about statistics."""

from datetime import date, timedelta
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from progress_service.analytics.roster import SORTS, Order, decode
from progress_service.calculations import COMPLETED, STATUSES
from progress_service.web.documents import EXCUSED, IN_PROGRESS, NOT_STARTED
from progress_service.web.validation import (
    Identifier,
    Instant,
    ModuleId,
    QueryDate,
    QueryIdentifiers,
    QueryInteger,
    QueryPercentage,
    StrictSchema,
)

LONGEST_TIMELINE = timedelta(days=366)
MOST_USER_IDS = 200
CONTENT_STATUSES = (NOT_STARTED, IN_PROGRESS, COMPLETED, EXCUSED)
PAIRS = {"contentId": "contentStatus", "contentStatus": "contentId", "stalledDays": "stalledOn"}
"""Parameters of the roster that need another one."""


class StatisticsQuery(StrictSchema):
    stalledDays = QueryInteger(
        1, 365, load_default=7, description="The days without an update after which a learner has stalled."
    )


class RosterQuery(StatisticsQuery):
    sort = fields.String(
        validate=validate.OneOf(SORTS),
        load_default=SORTS[0],
        metadata={"description": "The order, descending with `-`; learners without activity sort before all others."},
    )
    status = fields.String(validate=validate.OneOf(STATUSES), load_default=None, allow_none=False)
    inactiveDays = QueryInteger(
        0,
        36_500,
        load_default=None,
        allow_none=False,
        description="Only learners, neither completed nor dropped, without activity for so many days;"
        " the enrollment counts for learners without any activity.",
    )
    maxProgress = QueryPercentage(
        load_default=None, allow_none=False, description="Only learners with at most this `progressPercentage`."
    )
    stalledOn = Identifier(
        load_default=None,
        allow_none=False,
        description="Only learners who have stalled on this content: those that `stalled` in the statistics counts.",
    )
    contentId = Identifier(
        load_default=None, allow_none=False, description="Only learners to whom this content has the `contentStatus`."
    )
    contentStatus = fields.String(
        validate=validate.OneOf(CONTENT_STATUSES),
        load_default=None,
        allow_none=False,
        metadata={"description": "The status that the content `contentId` has."},
    )
    userIds = QueryIdentifiers(
        MOST_USER_IDS,
        load_default=None,
        allow_none=False,
        description=f"Only these learners, at most {MOST_USER_IDS}, with commas; unknown ones are not found.",
    )
    completedSince = Instant(
        load_default=None, allow_none=False, description="Only learners whose `completedAt` is this time or later."
    )

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def check_pairs(self, data: dict[str, Any], original: dict[str, Any], **kwargs: Any) -> None:
        """Some parameters mean nothing without another one."""
        lacking = {missing: given for given, missing in PAIRS.items() if given in original and missing not in original}
        if lacking:
            raise ValidationError({name: [f"Must be given together with {lacking[name]}."] for name in lacking})


class RosterPageQuery(RosterQuery):
    limit = QueryInteger(1, 200, load_default=50, description="The most learners of a page.")
    cursor = fields.String(
        metadata={
            "pattern": "^[A-Za-z0-9_-]+$",
            "description": "The `nextCursor` of the previous page, in the same order.",
        }
    )

    @validates_schema(skip_on_field_errors=False)
    def check_cursor(self, data: dict[str, Any], **kwargs: Any) -> None:
        """A cursor is a position in an order, and no other order takes it."""
        if "cursor" in data and "sort" in data:
            try:
                decode(data["cursor"], Order.named(data["sort"]))
            except ValueError as error:
                raise ValidationError("Is not a cursor of this order.", "cursor") from error


class TimelineQuery(StrictSchema):
    first = QueryDate(required=True, data_key="from", description="The first day, in UTC.")
    last = QueryDate(
        required=True, data_key="to", description="The last day, not before the first; at most 366 days in all."
    )

    @validates_schema
    def check_range(self, data: dict[str, date], **kwargs: Any) -> None:
        """A timeline runs forward, and is not longer than `LONGEST_TIMELINE`."""
        if not timedelta() <= data["last"] - data["first"] < LONGEST_TIMELINE:
            raise ValidationError(f"Must be at most {LONGEST_TIMELINE.days} days, the last not before the first.", "to")


class OverviewQuery(StrictSchema):
    limit = QueryInteger(1, 200, load_default=50, description="The most modules of a page.")
    cursor = ModuleId(load_default=None, allow_none=False, description="The `nextCursor` of the previous page.")
