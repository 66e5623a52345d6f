"""Tables of all learners as CSV (RFC 4180), made page by page, with times that spreadsheets read."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from msgspec.structs import astuple

from progress_service.analytics.documents import ListedLearnerDocument, MatrixCellDocument, MatrixLearnerDocument
from progress_service.analytics.matrix import Row, TitledContent
from progress_service.calculations import Denominators, Enrollment

CSV = "text/csv"
CONTENT_TYPE = f"{CSV}; charset=utf-8; header=present"


def learners(pages: Iterable[Iterable[Enrollment]], module: Denominators) -> Iterator[str]:
    """Write the learners of a roster, below the names of their fields."""
    yield lines([ListedLearnerDocument.__struct_encode_fields__])
    for page in pages:
        yield lines(astuple(ListedLearnerDocument.of(enrollment, module)) for enrollment in page)


def matrix(contents: Sequence[TitledContent], pages: Iterable[Iterable[Row]], module: Denominators) -> Iterator[str]:
    """Write the learners of a matrix, each with the figures of all contents one after another."""
    *names, _ = MatrixLearnerDocument.__struct_encode_fields__
    figures = MatrixCellDocument.__struct_encode_fields__
    yield lines([[*names, *(f"{content.id} {figure}" for content in contents for figure in figures)]])
    nothing = [None] * len(figures)
    for page in pages:
        documents = (astuple(MatrixLearnerDocument.of(row, module)) for row in page)
        yield lines(
            [*learner, *chain.from_iterable(astuple(cell) if cell else nothing for cell in cells)]
            for *learner, cells in documents
        )


def lines(rows: Iterable[Iterable[Any]]) -> str:
    """Write rows of a document's values."""
    text = io.StringIO()
    csv.writer(text).writerows(map(_cell, row) for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Write a time, which is in UTC, in whole seconds; a truth as in JSON; other values as they are."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return str(value).lower() if isinstance(value, bool) else value
