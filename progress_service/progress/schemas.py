"""The schemas of requests about progress."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from progress_service.calculations import POINT, STATUSES
from progress_service.web.auth import Caller, Role
from progress_service.web.validation import (
    IDENTIFIER_CHARACTER,
    Identifier,
    Instant,
    Number,
    Pattern,
    QueryInteger,
    StrictSchema,
    Text,
    UserId,
)

BATCH_LIMIT = 1000
HIGHEST_SCORE = 1_000_000
LONGEST_TIME = 1_000_000_000
"""The most seconds that a correction may give a record: 31 years. So the sums over all learners fit into 64 bits."""
MOST_ADDED, LONGEST_SESSION = 14_400, 86_400
"""The most seconds that an update adds, and the most that a session has."""
SCORE_AND_MAXIMUM = {"score": "maxScore", "maxScore": "score"}
"""Each of these fields needs the other."""
NEWEST = 10**18
"""A number beyond the id of every change."""


class ScoredSchema(StrictSchema):
    """Values with a score, which comes with its maximum."""

    keywords = {"dependentRequired": {given: [missing] for given, missing in SCORE_AND_MAXIMUM.items()}}

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def check_score(self, data: Mapping[str, Any], original: Any, **kwargs: Any) -> None:
        """A score needs its maximum, and is not more."""
        if not isinstance(original, dict):
            return
        for given, missing in SCORE_AND_MAXIMUM.items():
            if given in original and missing not in original:
                raise ValidationError(f"Must be given together with {given}.", missing)
        if "score" not in data or "max_score" not in data:
            return
        score, max_score = data["score"], data["max_score"]
        if (score is None) != (max_score is None):
            raise ValidationError("Must be null together with maxScore.", "score")
        if score is not None and score > max_score:
            raise ValidationError("Must not be more than maxScore.", "score")


ADDED = Number(0, MOST_ADDED)


class TimeSpent(Number):
    """Seconds to add or, beside a session, the seconds of the session so far."""

    def __init__(self) -> None:
        description = (
            "Seconds to add to the time spent; with a `session`, the total of the session so far, of which the largest"
            f" that was reported counts. At most {MOST_ADDED} without a `session`, and {LONGEST_SESSION} with one."
        )
        super().__init__(0, LONGEST_SESSION, description=description)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if "session" in data:
            return super()._deserialize(value, attr, data, **kwargs)
        return ADDED._deserialize(value, attr, data, **kwargs)


class EffortSchema(ScoredSchema):
    """A learner's activity in a content."""

    keywords = {
        **ScoredSchema.keywords,
        "anyOf": [{"required": ["session"]}, {"properties": {"timeSpentSeconds": {"maximum": MOST_ADDED}}}],
    }

    timeSpentSeconds = TimeSpent()
    session = Pattern(
        f"{IDENTIFIER_CHARACTER}{{1,64}}",
        accepts={"minLength": 1, "maxLength": 64},
        description="The player's name for this sitting. `timeSpentSeconds` is then its total, and may be repeated.",
    )
    score = Number(
        0, HIGHEST_SCORE, places=4, description="At most `maxScore`, with up to 4 decimals. The best ratio is kept."
    )
    maxScore = Number(
        Decimal(1) / POINT, HIGHEST_SCORE, places=4, description="The highest possible score, with up to 4 decimals."
    )
    position = Text(255, description="The place to resume at, in the player's own form.")
    occurredAt = Instant(description="The time of the activity; now, if left out. Only for admins and services.")


class UpdateSchema(EffortSchema):
    """A report about a learner and a content; a `contentId` alone reports that the content was opened."""

    contentId = Identifier(required=True)
    progressPercentage = Number(
        0, 100, floor=True, description="The progress in per cent; decimals are dropped. Progress never falls."
    )
    userId = UserId(description="The learner; the caller, if left out. A service must give it.")


class OthersUpdateSchema(UpdateSchema):
    """An update by a service, which must name the learner."""

    userId = UserId(required=True)


class Updates(fields.Nested):
    """A list of updates; a list that is too long is refused without reading its updates."""

    default_error_messages = {"length": f"Must be a list of 1 to {BATCH_LIMIT} updates."}

    def __init__(self, schema: type[UpdateSchema]) -> None:
        super().__init__(schema, many=True, required=True, metadata={"minItems": 1, "maxItems": BATCH_LIMIT})

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, list) or not 1 <= len(value) <= BATCH_LIMIT:
            raise self.make_error("length")
        return super()._deserialize(value, *args, **kwargs)


class BatchSchema(StrictSchema):
    """Updates that are applied together."""

    updates = Updates(UpdateSchema)


class OthersBatchSchema(StrictSchema):
    """A batch by a service, which must name the learner of each update."""

    updates = Updates(OthersUpdateSchema)


OWN_UPDATE, OTHERS_UPDATE = UpdateSchema(), OthersUpdateSchema()
OWN_BATCH, OTHERS_BATCH = BatchSchema(), OthersBatchSchema()


def update_schema(caller: Caller) -> UpdateSchema:
    """Return the schema of a caller's update."""
    return OTHERS_UPDATE if caller.role is Role.SERVICE else OWN_UPDATE


def batch_schema(caller: Caller) -> BatchSchema | OthersBatchSchema:
    """Return the schema of a caller's batch."""
    return OTHERS_BATCH if caller.role is Role.SERVICE else OWN_BATCH


class RecordQuery(StrictSchema):
    userId = UserId(
        description="The record's learner, if the caller knows them: a large installation finds the record faster. The"
        " record of another learner is not found."
    )


class CorrectionSchema(ScoredSchema):
    """The values that replace those of a record; what is left out stays."""

    keywords = {**ScoredSchema.keywords, "minProperties": 1}

    progressPercentage = Number(0, 100, floor=True, description="The progress in per cent; decimals are dropped.")
    timeSpentSeconds = Number(0, LONGEST_TIME, description="All seconds that were spent.")
    score = Number(
        0,
        HIGHEST_SCORE,
        places=4,
        allow_none=True,
        description="At most `maxScore`, with up to 4 decimals; or no score.",
    )
    maxScore = Number(
        Decimal(1) / POINT,
        HIGHEST_SCORE,
        places=4,
        allow_none=True,
        description="The highest possible score, with up to 4 decimals; null if and only if `score` is.",
    )
    position = Text(255, allow_none=True, description="The place to resume at, in the player's own form; or no place.")

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def check_presence(self, data: Mapping[str, Any], original: Any, **kwargs: Any) -> None:
        """A correction corrects something."""
        if original == {}:
            raise ValidationError("Must give a value.")


class MergeSchema(StrictSchema):
    """Another learner, who is the same person."""

    into = UserId(required=True, description="The learner who remains.")


class DashboardQuery(StrictSchema):
    status = fields.String(
        validate=validate.OneOf(STATUSES), metadata={"description": "Only modules with this status are listed."}
    )


class HistoryQuery(StrictSchema):
    limit = QueryInteger(1, 200, load_default=50, description="The most changes of a page.")
    cursor = Pattern(r"[1-9]\d{0,17}", description="The `nextCursor` of the previous page.")
