"""The values of `calculations` in rows of the tables: columns have the names of the values' fields."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy.orm import InstrumentedAttribute

from progress_service import calculations
from progress_service.store.models import (
    ActivityDay,
    Base,
    Content,
    Enrollment,
    ImportedEnrollment,
    Module,
    ProgressRecord,
    Session,
)


def columns(model: type[Base], value: Any) -> list[InstrumentedAttribute[Any]]:
    """Return the columns that make a value, in the order of its fields."""
    return [getattr(model, name) for name in value._fields]


def values(row: Sequence[Any], *kinds: Any) -> Iterator[Any]:
    """Cut a row into values; a value whose first column is null is None, since an outer join found no row for it."""
    start = 0
    for kind in kinds:
        part = row[start : start + len(kind._fields)]
        yield None if part[0] is None else kind(*part)
        start += len(part)


MODULE = columns(Module, calculations.Denominators)
ENROLLMENT = columns(Enrollment, calculations.Enrollment)
RECORD = columns(ProgressRecord, calculations.Record)
ACTIVITY_DAY = columns(ActivityDay, calculations.ActivityDay)
LINE_DATES = columns(ImportedEnrollment, calculations.LineDates)
SESSION = columns(Session, calculations.Session)
CONTENT_RULE = columns(Content, calculations.ContentRule)
