"""What statistics look like."""

from datetime import date, timedelta
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from progress_service.analytics.roster import SORTS, Order, decode
from progress_service.calculations import STATUSES
from progress_service.documents import COUNTED, EnrollmentSchema
from progress_service.validation import StrictSchema, WrittenDate, WrittenHundredths, WrittenWhole

LONGEST_TIMELINE = timedelta(days=366)


class StatisticsQuery(StrictSchema):
    stalledDays = WrittenWhole(
        1,
        365,
        load_default=7,
        attribute="stalled_days",
        description="After how many days without an update a learner has stalled.",
    )


class RosterQuery(StrictSchema):
    limit = WrittenWhole(1, 200, load_default=50, description="How many learners a page has at most.")
    cursor = fields.String(
        metadata={
            "pattern": "^[A-Za-z0-9_-]+$",
            "description": "The `nextCursor` of the page before, in the same order.",
        }
    )
    sort = fields.String(
        validate=validate.OneOf(SORTS),
        load_default=SORTS[0],
        metadata={"description": "The order, with `-` downwards; who was never active stands as if before all others."},
    )
    status = fields.String(validate=validate.OneOf(STATUSES), load_default=None, allow_none=False)
    inactiveDays = WrittenWhole(
        0,
        36_500,
        load_default=None,
        allow_none=False,
        attribute="inactive_days",
        description="Only who is neither completed nor dropped, and had no activity for so many days;"
        " who was never active counts from the enrollment.",
    )
    maxProgress = WrittenHundredths(
        load_default=None,
        allow_none=False,
        attribute="max_progress",
        description="Only who has at most this `progressPercentage`.",
    )

    @validates_schema(skip_on_field_errors=False)
    def check_cursor(self, data: dict[str, Any], **kwargs: Any) -> None:
        """A cursor is a place in the order that it was given for."""
        if "cursor" in data and "sort" in data:
            try:
                decode(data["cursor"], Order.named(data["sort"]))
            except ValueError as error:
                raise ValidationError("Was not given by this service for this order.", "cursor") from error


class TimelineQuery(StrictSchema):
    first = WrittenDate(required=True, data_key="from", description="The first day, in UTC.")
    last = WrittenDate(
        required=True, data_key="to", description="The last day, not before the first; at most 366 days in all."
    )

    @validates_schema
    def check_range(self, data: dict[str, date], **kwargs: Any) -> None:
        """A timeline runs forward, and has an end."""
        if not timedelta() <= data["last"] - data["first"] < LONGEST_TIMELINE:
            raise ValidationError(f"Must be at most {LONGEST_TIMELINE.days} days, the last not before the first.", "to")


class LearnerCountsSchema(StrictSchema):
    """How many learners there are: `enrolled` is the sum of the four statuses, and of `started` and `notStarted`."""

    enrolled = fields.Integer(required=True)
    active = fields.Integer(required=True)
    paused = fields.Integer(required=True)
    dropped = fields.Integer(required=True)
    completed = fields.Integer(required=True)
    started = fields.Integer(required=True)
    notStarted = fields.Integer(required=True)


class TimeSpentSchema(StrictSchema):
    """The time that all learners spent, and its average over those who started."""

    totalSeconds = fields.Integer(required=True)
    averageSecondsPerLearner = fields.Float(required=True, allow_none=True)


class TypeStatisticsSchema(StrictSchema):
    """What became of a type's contents, over the learners who started them."""

    type = fields.String(required=True)
    contents = fields.Integer(required=True)
    started = fields.Integer(required=True)
    completed = fields.Integer(required=True)
    completionRate = fields.Float(required=True, allow_none=True)
    averageTimeSpentSeconds = fields.Float(required=True, allow_none=True)


class ContentStatisticsSchema(StrictSchema):
    """What became of a content, over the learners who started it."""

    contentId = fields.String(required=True)
    title = fields.String(required=True)
    type = fields.String(required=True)
    section = fields.String(required=True, allow_none=True)
    weight = fields.Integer(required=True)
    started = fields.Integer(required=True)
    completed = fields.Integer(required=True)
    completionRate = fields.Float(required=True, allow_none=True)
    averageTimeSpentSeconds = fields.Float(required=True, allow_none=True)
    averageScorePercentage = fields.Float(required=True, allow_none=True)
    stalled = fields.Integer(
        required=True,
        metadata={
            "description": "Learners, neither completed nor dropped, whose last update was on this content"
            " and is at least `stalledDays` old."
        },
    )


class StatisticsSchema(StrictSchema):
    """A module's statistics; rate, average, median and distribution run over the learners who are not dropped."""

    moduleId = fields.String(required=True)
    title = fields.String(required=True)
    learners = fields.Nested(LearnerCountsSchema, required=True)
    completionRate = fields.Float(required=True, allow_none=True)
    averageProgressPercentage = fields.Float(required=True, allow_none=True)
    medianProgressPercentage = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "Of the percentages rounded down to whole ones; the lower of two middle values."},
    )
    progressDistribution = fields.List(
        fields.Integer(),
        required=True,
        validate=validate.Length(equal=11),
        metadata={"description": "How many learners are in [0,10), [10,20), … [90,100), and at exactly 100."},
    )
    timeSpent = fields.Nested(TimeSpentSchema, required=True)
    contents = fields.Nested(ContentStatisticsSchema, many=True, required=True)
    byType = fields.Nested(TypeStatisticsSchema, many=True, required=True)


class ListedLearnerSchema(EnrollmentSchema):
    """A learner of a module."""

    lastContentId = fields.String(
        required=True, allow_none=True, metadata={"description": "The content of the learner's latest update."}
    )
    counted = fields.Boolean(required=True, metadata={"description": COUNTED})


class RosterSchema(StrictSchema):
    """A page of a module's learners; the cursor leads to the next one."""

    items = fields.Nested(ListedLearnerSchema, many=True, required=True)
    nextCursor = fields.String(
        required=True, allow_none=True, metadata={"description": "The `cursor` of the next page; null on the last one."}
    )


class DaySchema(StrictSchema):
    """What happened on one day, by the times of the updates."""

    date = fields.Date(required=True)
    activeLearners = fields.Integer(required=True)
    contentsStarted = fields.Integer(required=True)
    contentsCompleted = fields.Integer(required=True)
    enrollmentsCompleted = fields.Integer(required=True)
    timeSpentSeconds = fields.Integer(required=True)


class TimelineSchema(StrictSchema):
    """What happened in a module, day by day in UTC."""

    days = fields.Nested(DaySchema, many=True, required=True)
