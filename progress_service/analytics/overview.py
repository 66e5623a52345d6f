"""The modules with their main figures, page by page, in the order of their ids."""

from collections.abc import Mapping
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from sqlalchemy import Connection, String, and_, func, literal_column, select, true, union_all

from progress_service import calculations
from progress_service.analytics.queries import TitledModule
from progress_service.calculations import STATUSES
from progress_service.store.functions import one_of, summed_to_int
from progress_service.store.models import Enrollment, Module, ModuleInstructor, Tally
from progress_service.store.values import MODULE
from progress_service.tallies import STATUS, Counts


class Summary(NamedTuple):
    """The values that a module's main figures are made of."""

    module: TitledModule
    statuses: Mapping[str, Counts]
    """The sums over the enrollments, by their status."""
    last_activity_at: datetime | None


def page(connection: Connection, instructor_id: str | None, after: str | None, limit: int) -> list[Summary]:
    """List the first modules behind an id, or from the start: all modules, or those that an instructor teaches."""
    modules = select(Module.id, Module.title, *MODULE).order_by(Module.id).limit(limit)
    if instructor_id is not None:
        modules = modules.join(ModuleInstructor).where(ModuleInstructor.user_id == instructor_id)
    if after is not None:
        modules = modules.where(Module.id > after)
    listed = modules.subquery("listed")
    names = (select(literal_column(f"'{name}'", String).label("name")) for name in STATUSES)
    status = union_all(*names).subquery("status")
    # For each module and status the last entry of an index.
    last_activity_at = (
        select(Enrollment.last_activity_at)
        .where(Enrollment.module_id == listed.c.id, Enrollment.status == status.c.name, Enrollment.counted)
        .where(Enrollment.last_activity_at.is_not(None))
        .order_by(Enrollment.last_activity_at.desc(), Enrollment.user_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    sums = [summed_to_int(func.sum(column)) for column in (Tally.learners, Tally.started, Tally.weighted_sum)]
    of_status = and_(Tally.module_id == listed.c.id, one_of(Tally.kind, [STATUS]), Tally.item == status.c.name)
    found = (
        select(*listed.c, last_activity_at, status.c.name, *sums)
        .select_from(listed)
        .join(status, true())
        .outerjoin(Tally, of_status)
        .group_by(*listed.c, status.c.name)
        .order_by(listed.c.id)
    )
    summaries = []
    for (module_id, title, *totals), rows in groupby(connection.execute(found), itemgetter(slice(len(listed.c)))):
        module = TitledModule(module_id, title, calculations.Denominators(*totals))
        activity, statuses = [], {}
        for last, name, learners, started, weighted_sum in (row[len(listed.c) :] for row in rows):
            activity.append(last)
            statuses[name] = Counts(learners, started, weighted_sum=weighted_sum)
        summaries.append(Summary(module, statuses, max(filter(None, activity), default=None)))
    return summaries
