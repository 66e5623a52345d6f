"""The schemas of queries about statistics."""

from datetime import date, timedelta
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from progress_service.analytics.roster import SORTS, Order, decode
from progress_service.calculations import STATUSES
from progress_service.web.validation import ModuleId, QueryDate, QueryInteger, QueryPercentage, StrictSchema

LONGEST_TIMELINE = timedelta(days=366)


class StatisticsQuery(StrictSchema):
    stalledDays = QueryInteger(
        1, 365, load_default=7, description="The days without an update after which a learner has stalled."
    )


class RosterQuery(StrictSchema):
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
