"""The schema of the query for changes."""

from progress_service.store.models import CHANGE_TYPES
from progress_service.web.validation import ModuleId, Pattern, QueryInteger, StrictSchema

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
