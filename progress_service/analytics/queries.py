"""The queries for statistics: sums of tallies, whose number does not grow with the number of learners."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    String,
    bindparam,
    cast,
    func,
    literal_column,
    null,
    select,
    union_all,
)

from progress_service import calculations
from progress_service.calculations import ACTIVE, PAUSED
from progress_service.store.direct import DirectStatement
from progress_service.store.functions import content_of, one_of
from progress_service.store.models import Content, Enrollment, Module, Tally
from progress_service.store.values import MODULE
from progress_service.tallies import CONTENT, DAY, EXCUSED, LAST_DAY, LAST_WEEK, NOTHING, PERCENTAGE, STATUS, Counts
from progress_service.web.documents import ListedContent


class TitledModule(NamedTuple):
    """A module's title, and the denominators of its progress."""

    id: str
    title: str
    module: calculations.Denominators


class Statistics(NamedTuple):
    """The values that a module's statistics are made of."""

    module: TitledModule
    contents: Sequence[tuple[ListedContent, Counts]]
    """The current contents in catalog order, and the sums over their records."""
    statuses: Mapping[str, Counts]
    """The sums over the enrollments, by their status."""
    percentages: Mapping[str, int]
    """How many learners are at each percentage."""
    excused: Mapping[str, int]
    """How many learners are excused from each content."""
    stalled: Mapping[str, int]
    """The active and paused learners without activity since an instant, by the content of their last update."""


THE_MODULE: Any = bindparam("module_id", type_=Module.id.type)
FOUND, STALLED = "found", "stalled"
"""The kinds of the rows of `STATISTICS` that are neither of a content nor of tallies."""
NUMBERS, TEXTS = 7, 3
"""How many numbers and texts each of these rows has, behind its kind and its item."""


def _sum(name: str) -> ColumnElement[int]:
    return cast(func.sum(getattr(Tally, name)), BigInteger)  # PostgreSQL returns a decimal


def _of_kind(kind: str) -> tuple[ColumnElement[bool], ...]:
    return Tally.module_id == THE_MODULE, one_of(Tally.kind, [kind])


def _rows(kind: str, item: Any, *numbers: Any, texts: Sequence[Any] = ()) -> Any:
    """Select rows of the form of `STATISTICS`; their columns have the same types, so that PostgreSQL converts none."""
    padded = [*numbers, *[null()] * (NUMBERS - len(numbers)), *texts, *[null()] * (TEXTS - len(texts))]
    named = [column.label(f"c{place}") for place, column in enumerate((item, *padded))]
    return select(literal_column(f"'{kind}'", String).label("kind"), *named)


def _contents() -> Any:
    """List the current contents with the sums of their tallies; where there are no tallies these are null."""
    names = "started", "completed", "time_spent_seconds", "scored", "score_hundredths"
    sums = [_sum(name).label(name) for name in names]
    tallied = select(Tally.item, *sums).where(*_of_kind(CONTENT)).group_by(Tally.item).subquery("tallied")
    numbers = [*(tallied.c[name] for name in names), cast(Content.weight, BigInteger), Content.ordinal]
    return (
        _rows(CONTENT, Content.id, *numbers, texts=(Content.title, Content.type, Content.section))
        .outerjoin_from(Content, tallied, tallied.c.item == Content.id)
        .where(Content.module_id == THE_MODULE, ~Content.retired)
    )


def _statuses() -> Any:
    sums = map(_sum, ("learners", "started", "time_spent_seconds", "weighted_sum"))
    return _rows(STATUS, Tally.item, *sums).where(*_of_kind(STATUS)).group_by(Tally.item)


def _learners(kind: str) -> Any:
    return _rows(kind, Tally.item, _sum("learners")).where(*_of_kind(kind)).group_by(Tally.item)


def _stalled() -> list[Any]:
    """Count the active and paused learners without activity since an instant, by the content of their last update.

    Learners who are excused from that content are left out.
    Tallies give the complete weeks before the instant's week, and its complete days before the instant's day. On that
    day itself the enrollments are counted.
    """
    # PostgreSQL plans a statement for each value of a parameter, which takes long, but not if it is in a subquery.
    week, day, midnight, since = (
        select(bindparam(name, type_=type_)).scalar_subquery()
        for name, type_ in (
            ("week", String),
            ("day", String),
            ("midnight", Enrollment.last_activity_at.type),
            ("since", Enrollment.last_activity_at.type),
        )
    )
    content_id = cast(content_of(Tally.item), String)
    before = _rows(STALLED, content_id, _sum("learners")).group_by(content_id)
    within = _rows(STALLED, Enrollment.last_content_id, func.count()).group_by(Enrollment.last_content_id)
    return [
        before.where(*_of_kind(LAST_WEEK), Tally.item < week),
        before.where(*_of_kind(LAST_DAY), Tally.item >= week, Tally.item < day),
        within.where(Enrollment.module_id == THE_MODULE, *have_stalled(since), Enrollment.last_activity_at >= midnight),
    ]


def have_stalled(since: Any, learner: Any = Enrollment) -> tuple[Any, ...]:
    """Return the conditions of learners who have stalled on the content of their last update, since an instant."""
    return (
        one_of(learner.status, (ACTIVE, PAUSED)),
        learner.counted,
        ~learner.last_is_excused,
        learner.last_activity_at <= since,
    )


MODULE_TITLE = DirectStatement(select(Module.title, *MODULE).where(Module.id == THE_MODULE))
_FOUND = _rows(FOUND, Module.title, *MODULE).where(Module.id == THE_MODULE)
STATISTICS = DirectStatement(
    union_all(_FOUND, _contents(), _statuses(), _learners(PERCENTAGE), _learners(EXCUSED), *_stalled())
)
DAYS = DirectStatement(
    select(Tally.item, *map(_sum, Counts._fields))
    .where(*_of_kind(DAY), Tally.item.between(bindparam("first", type_=String), bindparam("last", type_=String)))
    .group_by(Tally.item)
)


def module(connection: Connection, module_id: str) -> TitledModule | None:
    """Find a module."""
    found = MODULE_TITLE.run(connection, module_id=module_id)
    return next((TitledModule(module_id, title, calculations.Denominators(*row)) for title, *row in found), None)


def known_contents(connection: Connection, module_id: str, names: Collection[str]) -> set[str]:
    """Find which of these are contents of a module, retired ones too."""
    of_module = select(Content.id).where(Content.module_id == module_id, Content.id.in_(names))
    return set(connection.execute(of_module).scalars())


def statistics(connection: Connection, module_id: str, since: datetime) -> Statistics | None:
    """Find the values of a module's statistics by one statement; stalled learners were not active since an instant."""
    found: list[TitledModule] = []
    contents: list[tuple[int, ListedContent, Counts]] = []
    statuses: dict[str, Counts] = {}
    percentages: dict[str, int] = {}
    excused: dict[str, int] = {}
    stalled: Counter[str] = Counter()
    rows = STATISTICS.run(
        connection,
        module_id=module_id,
        week=str(calculations.week_of(since)),
        day=str(since.date()),
        midnight=datetime.combine(since, time(), UTC),
        since=since,
    )
    for kind, item, first, second, third, fourth, fifth, weight, ordinal, title, type_, section in rows:
        if kind == CONTENT:
            counts = NOTHING if first is None else Counts(0, first, second, 0, third, 0, fourth, fifth)
            contents.append((ordinal, ListedContent(item, title, type_, section, weight), counts))
        elif kind == STATUS:
            statuses[item] = Counts(first, second, time_spent_seconds=third, weighted_sum=fourth)
        elif kind == PERCENTAGE:
            percentages[item] = first
        elif kind == EXCUSED:
            excused[item] = first
        elif kind == STALLED:
            stalled[item] += first
        else:
            found.append(TitledModule(module_id, item, calculations.Denominators(first, second)))
    contents.sort()
    listed = [(content, counts) for _, content, counts in contents]
    return next((Statistics(module, listed, statuses, percentages, excused, stalled) for module in found), None)


def days(connection: Connection, module_id: str, first: date, last: date) -> dict[str, Counts]:
    """Add up the tallies of each day from the first to the last; days without activity are left out."""
    rows = DAYS.run(connection, module_id=module_id, first=str(first), last=str(last))
    return {day: Counts(*counts) for day, *counts in rows}
