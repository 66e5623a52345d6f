"""The schemas of modules and enrollments, in requests and in files."""

from collections.abc import Iterator, Sequence
from typing import Any

from flask import request
from marshmallow import ValidationError, fields, missing, post_load, validate, validates_schema

from progress_service.calculations import COMPLETED, STATUSES
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

SETTABLE = ("status", "enrolledAt", "completedAt")
READ_ONLY = [name for name in EnrollmentDocument.__struct_encode_fields__ if name not in SETTABLE]
"""The fields of an enrollment that requests cannot set."""
REPEATED = ["Is given more than once."]
TIMES = ("enrolled_at", "completed_at")
CONTENTS_LIMIT, TYPES_LIMIT, INSTRUCTORS_LIMIT = 5000, 500, 1000
TEXT_LIMIT = 512 * 1024
"""In bytes of UTF-8, of all identifiers, titles, types and sections of a module's contents."""


class ContentSchema(StrictSchema):
    """A content, with its weight and the rule of its completion."""

    id = Identifier(required=True)
    title = Text(200, required=True)
    type = Pattern("[a-z0-9][a-z0-9_-]{0,31}", required=True, description="A slug, such as `video`.")
    section = Text(200, load_default=None)
    weight = Number(0, 10_000, load_default=1, description="With 0 the content is tracked and never counted.")
    completionThreshold = Number(1, 100, load_default=100, description="The percentage that completes the content.")
    passingScore = Number(
        0,
        100,
        places=2,
        load_default=None,
        description="The lowest best score that completes it, in per cent of its maximum, with up to two decimals.",
    )

    @post_load
    def make_content(self, data: dict[str, Any], **kwargs: Any) -> PublishedContent:
        return PublishedContent(**data)


class PathModuleId(ModuleId):
    """The identifier of the module, which must be that of the path; nothing is loaded."""

    default_error_messages = {"other": "Must be the module in the path."}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if super()._deserialize(value, attr, data, **kwargs) != (request.view_args or {})["module_id"]:
            raise self.make_error("other")
        return missing


class ModuleSchema(StrictSchema):
    """A module with all its contents, in order; no content and no instructor is given twice."""

    id: ModuleId = PathModuleId(description="That of the path.")
    title = Text(200, required=True)
    instructorIds = fields.List(
        UserId(),
        load_default=list,
        metadata={
            "uniqueItems": True,
            "maxItems": INSTRUCTORS_LIMIT,
            "description": "The users who teach the module; nobody, if left out.",
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
        """Name every repeated identifier, also if the items have other faults."""
        ids = [content.get("id") if isinstance(content, dict) else None for content in _list(original, "contents")]
        faults: dict[str, dict[int, Any]] = {
            "instructorIds": dict.fromkeys(_repeated(_list(original, "instructorIds")), REPEATED),
            "contents": {index: {"id": REPEATED} for index in _repeated(ids)},
        }
        if any(faults.values()):
            raise ValidationError(faults)

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def check_size(self, data: Any, original: Any, **kwargs: Any) -> None:
        """Name every bound that the lists of the module exceed."""
        instructor_ids, contents = _list(original, "instructorIds"), _list(original, "contents")
        described = [content for content in contents if isinstance(content, dict)]
        texts = [value for content in described for value in content.values() if isinstance(value, str)]
        faults: dict[str, list[str]] = {}
        for name, size, most, items in (
            ("instructorIds", len(instructor_ids), INSTRUCTORS_LIMIT, "instructors"),
            ("contents", len(contents), CONTENTS_LIMIT, "contents"),
            ("contents", len({str(content.get("type")) for content in described}), TYPES_LIMIT, "types"),
            ("contents", sum(len(text.encode(errors="replace")) for text in texts), TEXT_LIMIT, "bytes of text"),
        ):
            if size > most:
                faults.setdefault(name, []).append(f"Must have at most {most} {items}.")
        if faults:
            raise ValidationError(faults)


class EnrollmentChangeSchema(StrictSchema):
    """What the platform may change of an enrollment."""

    status = fields.String(
        validate=validate.OneOf(STATUSES),
        metadata={
            "description": "If left out, a new enrollment is `active`."
            " `completed` gives credit for what was completed elsewhere, whatever the records say."
        },
    )
    enrolledAt = Instant(description="If left out, a new enrollment begins now.")
    counted = Truth(description=COUNTED)


class ChangedEnrollmentSchema(EnrollmentChangeSchema):
    """A change of an enrollment. The other fields of an answer may be sent back as they were read."""

    completedAt = Instant(
        allow_none=True,
        description="When a completed enrollment was completed; if left out, with the status `completed`, now.",
    )
    userId, moduleId, lastActivityAt = (fields.Raw(allow_none=True, metadata={"readOnly": True}) for _ in range(3))
    progressPercentage, completedContents, totalContents, timeSpentSeconds = (
        fields.Raw(metadata={"readOnly": True}) for _ in range(4)
    )

    @post_load
    def separate_read_only(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Separate the fields that the caller cannot set."""
        read_only = {name: data.pop(snake_case(name)) for name in READ_ONLY if snake_case(name) in data}
        if data.get("completed_at", ...) is None and data.get("status") != COMPLETED:
            read_only["completedAt"] = data.pop("completed_at")
        return {"change": data, "read_only": read_only}


class IdentifiedModuleSchema(ModuleSchema):
    id = ModuleId(required=True)


class CatalogSchema(StrictSchema):
    """A file of modules."""

    modules = fields.Nested(IdentifiedModuleSchema, many=True, required=True)


class EnrollmentLineSchema(EnrollmentChangeSchema):
    """A line of a file of enrollments."""

    userId = UserId(required=True)
    moduleId = ModuleId(required=True)
    completedAt = Instant(description="When the module was completed.")
    occurredAt = Instant(description="As of when the line tells this; else the later of its other times.")

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def check_completion(self, data: Any, original: Any, **kwargs: Any) -> None:
        """A date of completion needs the status `completed`."""
        if isinstance(original, dict) and "completedAt" in original and original.get("status") != COMPLETED:
            raise ValidationError("Must be given together with the status completed.", "completedAt")

    @post_load
    def date(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Say as of when the line tells what it tells, if it has any time."""
        occurred_at = data.pop("occurred_at", None)
        if occurred_at and data.get("status") == COMPLETED:
            data.setdefault("completed_at", occurred_at)
        times = [occurred_at] if occurred_at else [data[name] for name in TIMES if name in data]
        return {**data, "told_at": max(times)} if times else data


def _list(original: Any, name: str) -> list[Any]:
    """Return a field that is a list, or an empty list if the field is anything else."""
    given = original.get(name) if isinstance(original, dict) else None
    return given if isinstance(given, list) else []


def _repeated(values: Sequence[Any]) -> Iterator[int]:
    """Yield the indexes of strings that stand at an earlier index too."""
    seen = set()
    for index, value in enumerate(values):
        if isinstance(value, str):
            if value in seen:
                yield index
            seen.add(value)
