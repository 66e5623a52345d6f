"""What the platform publishes must look like."""

from collections.abc import Iterator, Sequence
from typing import Any

from flask import request
from marshmallow import ValidationError, fields, missing, post_load, validate, validates_schema

from progress_service.calculations import ACTIVE, COMPLETED, DROPPED, PAUSED, STATUSES
from progress_service.store.publishing import PublishedContent
from progress_service.web.documents import COUNTED, EnrollmentDocument
from progress_service.web.validation import (
    Identifier,
    Instant,
    ModuleId,
    Number,
    Pattern,
    StrictSchema,
    Text,
    Truth,
    UserId,
    snake_case,
)

READ = {"readOnly": True}
TOLD = [name for name in EnrollmentDocument.__struct_encode_fields__ if name not in ("status", "enrolledAt")]
"""What answers say of an enrollment and requests cannot set."""
REPEATED = ["Is given more than once."]
CONTENTS_LIMIT, TYPES_LIMIT, INSTRUCTORS_LIMIT = 5000, 500, 1000
TEXT_LIMIT = 512 * 1024
"""In bytes of UTF-8, of all identifiers, titles, types and sections of a module's contents."""


class ContentSchema(StrictSchema):
    """A content, with what it takes to complete it and how much it counts."""

    id = Identifier(required=True)
    title = Text(200, required=True)
    type = Pattern("[a-z0-9][a-z0-9_-]{0,31}", required=True, description="A slug, such as `video`.")
    section = Text(200, load_default=None)
    weight = Number(
        0, 10_000, load_default=1, description="How much it counts; with 0 it is tracked and never counted."
    )
    completionThreshold = Number(1, 100, load_default=100, description="The percentage from which on it is completed.")
    passingScore = Number(
        0,
        100,
        places=2,
        load_default=None,
        description="What the best score must reach too, in per cent of its maximum, with up to two decimals.",
    )

    @post_load
    def make_content(self, data: dict[str, Any], **kwargs: Any) -> PublishedContent:
        return PublishedContent(**data)


class PathModuleId(ModuleId):
    """The identifier of the module in the path, said again; nothing is loaded."""

    default_error_messages = {"other": "Must be the module in the path."}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if super()._deserialize(value, attr, data, **kwargs) != (request.view_args or {})["module_id"]:
            raise self.make_error("other")
        return missing


class ModuleSchema(StrictSchema):
    """A module with all its contents, in order; each content is given once, and so is each instructor."""

    id: ModuleId = PathModuleId(description="That of the path.")
    title = Text(200, required=True)
    instructorIds = fields.List(
        UserId(),
        load_default=list,
        attribute="instructor_ids",
        metadata={
            "uniqueItems": True,
            "maxItems": INSTRUCTORS_LIMIT,
            "description": "Who teaches the module; nobody, if left out.",
        },
    )
    contents = fields.Nested(
        ContentSchema,
        many=True,
        required=True,
        metadata={
            "maxItems": CONTENTS_LIMIT,
            "description": f"In order; of at most {TYPES_LIMIT} types. Their identifiers, titles, types and sections"
            f" have at most {TEXT_LIMIT // 1024} KiB of UTF-8 together.",
        },
    )

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def check_repeated(self, data: Any, original: Any, **kwargs: Any) -> None:
        """Name every identifier that is given before, also where its neighbours have faults of their own."""
        ids = [content.get("id") if isinstance(content, dict) else None for content in _list(original, "contents")]
        faults: dict[str, dict[int, Any]] = {
            "instructorIds": dict.fromkeys(_repeated(_list(original, "instructorIds")), REPEATED),
            "contents": {place: {"id": REPEATED} for place in _repeated(ids)},
        }
        if any(faults.values()):
            raise ValidationError(faults)

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def check_size(self, data: Any, original: Any, **kwargs: Any) -> None:
        """Name every bound that the module passes as a whole."""
        instructor_ids, contents = _list(original, "instructorIds"), _list(original, "contents")
        described = [content for content in contents if isinstance(content, dict)]
        texts = [value for content in described for value in content.values() if isinstance(value, str)]
        faults: dict[str, list[str]] = {}
        for name, size, most, what in (
            ("instructorIds", len(instructor_ids), INSTRUCTORS_LIMIT, "instructors"),
            ("contents", len(contents), CONTENTS_LIMIT, "contents"),
            ("contents", len({str(content.get("type")) for content in described}), TYPES_LIMIT, "types"),
            ("contents", sum(len(text.encode(errors="replace")) for text in texts), TEXT_LIMIT, "bytes of text"),
        ):
            if size > most:
                faults.setdefault(name, []).append(f"Must have at most {most} {what}.")
        if faults:
            raise ValidationError(faults)


class EnrollmentChangeSchema(StrictSchema):
    """What to change of an enrollment; a learner completes a module by learning only."""

    status = fields.String(
        validate=validate.OneOf([ACTIVE, PAUSED, DROPPED]),
        metadata={"description": "Of a new enrollment `active`, if left out."},
    )
    enrolledAt = Instant(description="Of a new enrollment now, if left out.")


class ChangedEnrollmentSchema(EnrollmentChangeSchema):
    """What to change of an enrollment. What an answer says besides may be sent back as it was read."""

    status = fields.String(
        validate=validate.OneOf(STATUSES),
        metadata={"description": "Of a new enrollment `active`, if left out. `completed` only where it is."},
    )
    counted = Truth(description=COUNTED)
    userId, moduleId, completedAt, lastActivityAt = (fields.Raw(allow_none=True, metadata=READ) for _ in range(4))
    progressPercentage, completedContents, totalContents, timeSpentSeconds = (
        fields.Raw(metadata=READ) for _ in range(4)
    )

    @post_load
    def part_what_is_told(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Set aside what the caller cannot change."""
        told = {name: data.pop(snake_case(name)) for name in TOLD if snake_case(name) in data}
        if data.get("status") == COMPLETED:
            told["status"] = data.pop("status")
        return {"change": data, "told": told}


class IdentifiedModuleSchema(ModuleSchema):
    id = ModuleId(required=True)


class CatalogSchema(StrictSchema):
    """A file with modules."""

    modules = fields.Nested(IdentifiedModuleSchema, many=True, required=True)


class EnrollmentLineSchema(EnrollmentChangeSchema):
    """A line of a file with enrollments."""

    userId = UserId(required=True)
    moduleId = ModuleId(required=True)


def _list(original: Any, name: str) -> list[Any]:
    """Return a list as it was given, or an empty one where something else was."""
    given = original.get(name) if isinstance(original, dict) else None
    return given if isinstance(given, list) else []


def _repeated(values: Sequence[Any]) -> Iterator[int]:
    """Yield the places of strings that stand at an earlier place too."""
    seen = set()
    for place, value in enumerate(values):
        if isinstance(value, str):
            if value in seen:
                yield place
            seen.add(value)
