"""What each learner of a module has done in each of its contents, for a page of the roster at a time."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select

from progress_service.analytics import roster
from progress_service.analytics.roster import Filters, Order
from progress_service.calculations import Enrollment, Record
from progress_service.store.models import Content
from progress_service.store.statements import Statements
from progress_service.store.values import columns

CELLS = 5000
"""About the most records that are in memory while all learners are listed."""


class TitledContent(NamedTuple):
    """A current content of the module."""

    id: str
    title: str


class Row(NamedTuple):
    """A learner, with their record of each content, or None."""

    enrollment: Enrollment
    records: Sequence[Record | None]


def contents(connection: Connection, module_id: str) -> list[TitledContent]:
    """List the current contents of a module in their order."""
    current = select(*columns(Content, TitledContent)).where(Content.module_id == module_id, ~Content.retired)
    return [TitledContent(*row) for row in connection.execute(current.order_by(Content.ordinal))]


def rows(connection: Connection, contents: Sequence[TitledContent], learners: Sequence[Enrollment]) -> list[Row]:
    """Find the records that learners of a module have of its contents."""
    sql = Statements.of(connection)
    keys = sql.enrollment_keys((learner.user_id, learner.module_id, learner.enrolled_at) for learner in learners)
    found = (Record(*row) for row in sql.read_records.run(connection, **keys))
    records = {(record.user_id, record.content_id): record for record in found}
    return [Row(learner, [records.get((learner.user_id, content.id)) for content in contents]) for learner in learners]


def pages(
    connection: Connection, module_id: str, contents: Sequence[TitledContent], filters: Filters, order: Order
) -> Iterator[list[Row]]:
    """List all learners with their records, some learners at a time."""
    size = max(1, CELLS // max(1, len(contents)))
    for learners in roster.pages(connection, module_id, filters, order):
        for start in range(0, len(learners), size):
            yield rows(connection, contents, learners[start : start + size])
