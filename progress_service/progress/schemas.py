"""What updates must look like, and what answers about progress look like."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from progress_service.auth import Caller, Role
from progress_service.calculations import POINT, STATUSES
from progress_service.documents import COUNTED, NOT_STARTED, EnrollmentSchema, RecordSchema
from progress_service.validation import Identifier, Instant, Number, StrictSchema, Text, UserId

BATCH_LIMIT = 1000
HIGHEST_SCORE = 1_000_000
SCORE_AND_MAXIMUM = {"score": "maxScore", "maxScore": "score"}
"""What must come together with what."""


class EffortSchema(StrictSchema):
    """What a learner did with a content."""

    keywords = {"dependentRequired": {given: [missing] for given, missing in SCORE_AND_MAXIMUM.items()}}

    timeSpentSeconds = Number(
        0, 14_400, attribute="time_spent_seconds", description="Seconds to add to the time spent."
    )
    score = Number(
        0,
        HIGHEST_SCORE,
        places=4,
        description="At most `maxScore`, with up to 4 decimals. The best ratio of the two is kept.",
    )
    maxScore = Number(
        Decimal(1) / POINT,
        HIGHEST_SCORE,
        places=4,
        attribute="max_score",
        description="The score that could be reached, with up to 4 decimals.",
    )
    position = Text(255, description="Where to resume, in the words of the player.")
    occurredAt = Instant(
        attribute="occurred_at", description="When it happened; now, if left out. From admins and services only."
    )

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def check_score(self, data: Mapping[str, Any], original: Any, **kwargs: Any) -> None:
        """A score says nothing without its maximum, and is within it."""
        if not isinstance(original, dict):
            return
        for given, missing in SCORE_AND_MAXIMUM.items():
            if given in original and missing not in original:
                raise ValidationError(f"Must come together with {given}.", missing)
        if "score" in data and "max_score" in data and data["score"] > data["max_score"]:
            raise ValidationError("Must not be more than maxScore.", "score")


class UpdateSchema(EffortSchema):
    """One report about a learner and a content; with a `contentId` alone it says that the content was opened."""

    contentId = Identifier(required=True, attribute="content_id")
    progressPercentage = Number(
        0,
        100,
        floor=True,
        attribute="progress_percentage",
        description="How far the learner got, in per cent; decimals are dropped. Progress never falls.",
    )
    userId = UserId(attribute="user_id", description="The learner; the caller, if left out. A service must give it.")


class OthersUpdateSchema(UpdateSchema):
    """An update by a service, which has no progress of its own and says whose it is."""

    userId = UserId(required=True, attribute="user_id")


class Updates(fields.Nested):
    """A list of updates, whose length is looked at first: what is too long is not read."""

    default_error_messages = {"length": f"Must be a list of 1 to {BATCH_LIMIT} updates."}

    def __init__(self, schema: type[UpdateSchema]) -> None:
        super().__init__(schema, many=True, required=True, metadata={"minItems": 1, "maxItems": BATCH_LIMIT})

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, list) or not 1 <= len(value) <= BATCH_LIMIT:
            raise self.make_error("length")
        return super()._deserialize(value, *args, **kwargs)


class BatchSchema(StrictSchema):
    """Updates to be applied together."""

    updates = Updates(UpdateSchema)


class OthersBatchSchema(StrictSchema):
    updates = Updates(OthersUpdateSchema)


OWN_UPDATE, OTHERS_UPDATE = UpdateSchema(), OthersUpdateSchema()
OWN_BATCH, OTHERS_BATCH = BatchSchema(), OthersBatchSchema()


def update_schema(caller: Caller) -> UpdateSchema:
    """Return what a caller's update must look like."""
    return OTHERS_UPDATE if caller.role is Role.SERVICE else OWN_UPDATE


def batch_schema(caller: Caller) -> BatchSchema | OthersBatchSchema:
    return OTHERS_BATCH if caller.role is Role.SERVICE else OWN_BATCH


class DashboardQuery(StrictSchema):
    status = fields.String(
        validate=validate.OneOf(STATUSES), metadata={"description": "Only modules with this status are listed."}
    )


class RecordedSchema(StrictSchema):
    """A record and its enrollment, as an update has left them."""

    progress = fields.Nested(RecordSchema, required=True)
    enrollment = fields.Nested(EnrollmentSchema, required=True)


class BatchRecordedSchema(StrictSchema):
    """What a batch did."""

    received = fields.Integer(required=True, metadata={"description": "How many updates were applied."})
    started = fields.Integer(required=True, metadata={"description": "How many records were started."})
    completed = fields.Integer(required=True, metadata={"description": "How many records were completed."})
    enrollmentsCompleted = fields.Integer(required=True)


class SummarySchema(StrictSchema):
    """The sums of all modules but the dropped ones."""

    enrolledModules = fields.Integer(required=True)
    activeModules = fields.Integer(required=True)
    completedModules = fields.Integer(required=True)
    totalContents = fields.Integer(required=True)
    completedContents = fields.Integer(required=True)
    progressPercentage = fields.Float(
        required=True,
        allow_none=True,
        validate=validate.Range(0, 100),
        metadata={"description": "The mean of the modules' exact values, rounded down to two decimals."},
    )
    timeSpentSeconds = fields.Integer(required=True)
    lastActivityAt = fields.AwareDateTime(required=True, allow_none=True)


class ContinueSchema(StrictSchema):
    """The content on which the learner goes on; at 0, null and null where they have not started it."""

    moduleId = fields.String(required=True)
    contentId = fields.String(required=True)
    title = fields.String(required=True)
    progressPercentage = fields.Integer(required=True, validate=validate.Range(0, 99))
    position = fields.String(required=True, allow_none=True)
    lastActivityAt = fields.AwareDateTime(required=True, allow_none=True)


class TitledEnrollmentSchema(EnrollmentSchema):
    """How far one learner is with one module, and the module's title."""

    title = fields.String(required=True)


class DashboardSchema(StrictSchema):
    """A learner's progress in all their modules."""

    userId = fields.String(required=True)
    summary = fields.Nested(SummarySchema, required=True)
    resume = fields.Nested(ContinueSchema, required=True, allow_none=True, data_key="continue")
    modules = fields.Nested(
        TitledEnrollmentSchema, many=True, required=True, metadata={"description": "By latest activity, newest first."}
    )


class ModuleTitleSchema(StrictSchema):
    """A module by its name."""

    id = fields.String(required=True)
    title = fields.String(required=True)


class ContentProgressSchema(StrictSchema):
    """A content of a module, and the learner's record of it, if there is one."""

    contentId = fields.String(required=True)
    title = fields.String(required=True)
    type = fields.String(required=True)
    section = fields.String(required=True, allow_none=True)
    weight = fields.Integer(required=True)
    progress = fields.Nested(RecordSchema, required=True, allow_none=True)
    status = fields.String(required=True, validate=validate.OneOf([NOT_STARTED, "in_progress", "completed"]))


class TypeProgressSchema(StrictSchema):
    """The sums of a type's contents: those of weight 0 count for the time only."""

    type = fields.String(required=True)
    totalContents = fields.Integer(required=True)
    completedContents = fields.Integer(required=True)
    timeSpentSeconds = fields.Integer(required=True)


class ModuleProgressSchema(StrictSchema):
    """A learner's progress in one module, content by content."""

    module = fields.Nested(ModuleTitleSchema, required=True)
    enrollment = fields.Nested(EnrollmentSchema, required=True, allow_none=True)
    contents = fields.Nested(ContentProgressSchema, many=True, required=True)
    byType = fields.Nested(TypeProgressSchema, many=True, required=True)


class ExportedEnrollmentSchema(TitledEnrollmentSchema):
    lastContentId = fields.String(required=True, allow_none=True)
    counted = fields.Boolean(required=True, metadata={"description": COUNTED})
    enrolledByUpdate = fields.Boolean(
        required=True, metadata={"description": "Whether an update made it, and the earliest one dates it."}
    )


class ExportedRecordSchema(RecordSchema):
    title = fields.String(required=True)
    furthestPercentage = fields.Integer(required=True)
    positionAt = fields.AwareDateTime(required=True, allow_none=True)
    reachedAt = fields.AwareDateTime(
        required=True,
        allow_none=True,
        metadata={"description": "When the completion threshold was first reached; null also where nothing was kept."},
    )
    passedAt = fields.AwareDateTime(
        required=True,
        allow_none=True,
        metadata={"description": "When the passing score was first reached; null also where nothing was kept."},
    )


class ActivityDaySchema(StrictSchema):
    moduleId = fields.String(required=True)
    date = fields.Date(required=True)
    timeSpentSeconds = fields.Integer(required=True)


class ExportedAnswerSchema(StrictSchema):
    """An answer that is kept for repeats of its request; null where it tells of somebody else, or of several people."""

    idempotencyKey = fields.String(required=True)
    requestDigest = fields.String(required=True)
    status = fields.Integer(required=True)
    storedAt = fields.AwareDateTime(required=True)
    answer = fields.Dict(required=True, allow_none=True)


class ExportSchema(StrictSchema):
    """Everything that is held about a learner."""

    userId = fields.String(required=True)
    enrollments = fields.Nested(ExportedEnrollmentSchema, many=True, required=True)
    records = fields.Nested(ExportedRecordSchema, many=True, required=True)
    activityDays = fields.Nested(ActivityDaySchema, many=True, required=True)
    teaches = fields.Nested(ModuleTitleSchema, many=True, required=True)
    storedAnswers = fields.Nested(ExportedAnswerSchema, many=True, required=True)
