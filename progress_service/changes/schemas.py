"""The schemas of the query for changes, and of webhooks."""

from typing import Any

from marshmallow import fields, post_load, validate

from progress_service.store.models import CHANGE_TYPES
from progress_service.web.validation import ModuleId, Pattern, QueryInteger, StrictSchema, Truth

NOW = "now"
_TYPE = f"(?:{'|'.join(name.replace('.', '[.]') for name in CHANGE_TYPES)})"


class ChangesQuery(StrictSchema):
    after = Pattern(
        rf"(?:{NOW}|[0-9]{{1,18}}[.][0-9]{{1,18}}[.][0-9]{{1,11}})",
        description="The `cursor` of the answer before, or `now` to begin with what happens from here on.",
    )
    limit = QueryInteger(1, 1000, load_default=100, description="The most changes of an answer.")
    types = Pattern(
        f"{_TYPE}(?:,{_TYPE})*", load_default=None, allow_none=False, description="Only these types, with commas."
    )
    moduleId = ModuleId(
        load_default=None, allow_none=False, description="Only changes of this module, and those of no module."
    )


class RequestedWebhookSchema(StrictSchema):
    """Where a program is to be told of changes, and of which. What else a GET has may be sent back, and is ignored."""

    url = Pattern(
        r"(?!.{2001})https?://[A-Za-z0-9.:\[\]-]+(?:[/?][!\"$-~]*)?",
        required=True,
        description="On a host that the operators allow.",
    )
    types = fields.List(
        fields.String(validate=validate.OneOf(CHANGE_TYPES)),
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, len(CHANGE_TYPES)),
        metadata={"description": "Only these types; null: all."},
    )
    moduleIds = fields.List(
        ModuleId(),
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, 1000),
        metadata={"description": "Only these modules, and changes that belong to none; null: all."},
    )
    active = Truth(load_default=True, description="Whether it is told now. Made active again, it gets what it missed.")
    id, pending, failingSince, lastStatus, secret = (
        fields.Raw(allow_none=True, metadata={"readOnly": True}) for _ in range(5)
    )

    @post_load
    def drop_read_only(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Drop the fields that the caller cannot set."""
        return {name: data[name] for name in ("url", "types", "module_ids", "active")}
