"""What statistics look like."""

from marshmallow import fields, validate

from progress_service.validation import StrictSchema


class LearnerCountsSchema(StrictSchema):
    enrolled = fields.Integer(required=True)
    active = fields.Integer(required=True)
    paused = fields.Integer(required=True)
    dropped = fields.Integer(required=True)
    completed = fields.Integer(required=True)
    started = fields.Integer(required=True)
    notStarted = fields.Integer(required=True)


class TimeSpentSchema(StrictSchema):
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


class StatisticsSchema(StrictSchema):
    """A module's statistics; rate, average, median and distribution run over the learners who are not dropped."""

    moduleId = fields.String(required=True)
    title = fields.String(required=True)
    learners = fields.Nested(LearnerCountsSchema, required=True)
    completionRate = fields.Float(required=True, allow_none=True)
    averageProgressPercentage = fields.Float(required=True, allow_none=True)
    medianProgressPercentage = fields.Integer(required=True, allow_none=True)
    progressDistribution = fields.List(fields.Integer(), required=True, validate=validate.Length(equal=11))
    timeSpent = fields.Nested(TimeSpentSchema, required=True)
    contents = fields.Nested(ContentStatisticsSchema, many=True, required=True)
    byType = fields.Nested(TypeStatisticsSchema, many=True, required=True)
