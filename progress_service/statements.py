"""The statements of the write path, built once for each dialect.

Each takes its rows as one table (see `rows`), so that a request runs the same statements with one update or a thousand.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Date,
    Dialect,
    FromClause,
    Select,
    String,
    and_,
    bindparam,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    literal_column,
    not_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.functions import FunctionElement

from progress_service import calculations
from progress_service.models import (
    IDENTIFIER,
    ActivityDay,
    Base,
    Content,
    Enrollment,
    Module,
    ModuleInstructor,
    ProgressRecord,
    Tally,
    UtcDateTime,
)
from progress_service.prepared import Prepared
from progress_service.rows import Rows
from progress_service.tallies import Counts, Group

CHANGES, REPAIRS = 0, 1
"""What a lock of a module is for: a catalog change and updates hold one another off by it, or repairs each other."""


class utc_day(FunctionElement[str]):  # noqa: N801  a function, named as one
    """The UTC day of a time, as text."""

    type = String()
    inherit_cache = True


class utc_week(FunctionElement[str]):  # noqa: N801
    """The Monday of a time's week in UTC, as text."""

    type = String()
    inherit_cache = True


@compiles(utc_day, "postgresql")
def _postgresql_day(element: utc_day, compiler: Any, **kwargs: Any) -> str:
    return f"to_char(timezone('UTC', {compiler.process(element.clauses, **kwargs)}), 'YYYY-MM-DD')"


@compiles(utc_day, "sqlite")
def _sqlite_day(element: utc_day | utc_week, compiler: Any, **kwargs: Any) -> str:
    # The text as it is stored: the date functions round a day's last half millisecond into the next day.
    return f"substr({compiler.process(element.clauses, **kwargs)}, 1, 10)"


@compiles(utc_week, "postgresql")
def _postgresql_week(element: utc_week, compiler: Any, **kwargs: Any) -> str:
    return f"to_char(date_trunc('week', timezone('UTC', {compiler.process(element.clauses, **kwargs)})), 'YYYY-MM-DD')"


@compiles(utc_week, "sqlite")
def _sqlite_week(element: utc_week, compiler: Any, **kwargs: Any) -> str:
    return f"date({_sqlite_day(element, compiler, **kwargs)}, 'weekday 0', '-6 days')"


def columns(model: type[Base], value: Any) -> list[InstrumentedAttribute[Any]]:
    """Return the columns that make a value of `calculations`, in the value's order."""
    return [getattr(model, name) for name in value._fields]


def one_of(column: Any, words: Collection[str]) -> ColumnElement[bool]:
    """Compare with fixed words, which stand in the statement: a list of parameters has no length beforehand."""
    condition: ColumnElement[bool] = column.in_([literal_column(f"'{word}'") for word in words])
    return condition


def whole(total: Any) -> ColumnElement[int]:
    """Make a sum whole again, which PostgreSQL answers as a decimal, and 0 where nothing was summed."""
    return cast(func.coalesce(total, 0), BigInteger)


def values(row: Sequence[Any], *kinds: Any) -> Iterator[Any]:
    """Cut a row into values; one that an outer join did not find is None."""
    start = 0
    for kind in kinds:
        part = row[start : start + len(kind._fields)]
        yield None if part[0] is None else kind(*part)
        start += len(part)


MODULE = columns(Module, calculations.Module)
CONTENT = columns(Content, calculations.Content)
ENROLLMENT = columns(Enrollment, calculations.Enrollment)
RECORD = columns(ProgressRecord, calculations.Record)
ACTIVITY_DAY = columns(ActivityDay, calculations.ActivityDay)
OWNER = ["user_id", "module_id"]
TOTALS = ["weighted_sum", "completed_contents", "time_spent_seconds"]
BY_INSTRUCTOR = bindparam("by_instructor", type_=Boolean)
"""Whether updates are an instructor's own."""

MOST_LOCKS = 50
"""How many modules a transaction locks one by one: PostgreSQL has room for 64 locks of each connection."""


class Statements:
    """The statements for one dialect, each beside the rows that it takes."""

    def __init__(self, dialect: Dialect) -> None:
        self._is_postgresql = dialect.name == "postgresql"
        self._insert: Any = (postgresql if self._is_postgresql else sqlite).insert

        def rows(name: str, model: type[Base], *names: str, **others: Any) -> Rows:
            kinds = {name: model.__table__.c[name].type for name in names}
            return Rows(dialect, name, **kinds, **others)

        self.keys = rows(
            "keys", ProgressRecord, "user_id", "content_id", day=Date(), enrolled_at=UtcDateTime(), place=BigInteger()
        )
        source, content = self.look_up(self.keys.table, Content, ["module_id"], id=self.keys.c.content_id)
        self.lock_modules_of_contents = self._share_modules(select(content.module_id).select_from(source))
        visitors = exists().where(
            ModuleInstructor.module_id == literal_column("learners.module_id"),
            ModuleInstructor.user_id == literal_column("learners.user_id"),
        )
        self.lock_enrollments_of_contents = self._lock_enrollments(
            self._first_updates(), by_update=True, counted=not_(and_(BY_INSTRUCTOR, visitors))
        )
        self.read = self._read()

        self.ids = rows("ids", Content, "id")
        self.enrollment_keys = rows("enrollment_keys", Enrollment, "user_id", "module_id", "enrolled_at")
        self.lock_modules = self._share_modules(select(self.enrollment_keys.c.module_id))
        self.lock_enrollments = self._lock_enrollments(
            select(self.enrollment_keys.table)
            .where(self.enrollment_keys.c.module_id.in_(select(Module.id)))
            .subquery("learners"),
            by_update=False,
            counted=true(),
        )
        self.read_enrollments = Prepared(
            select(*MODULE, *ENROLLMENT)
            .join(Enrollment, Enrollment.module_id == Module.id)
            .join(self.enrollment_keys.table, _same(Enrollment, self.enrollment_keys, "user_id", "module_id"))
        )
        self.read_records, self.read_days = (
            Prepared(select(*found).join(self.enrollment_keys.table, _same(model, self.enrollment_keys, *OWNER)))
            for model, found in ((ProgressRecord, RECORD), (ActivityDay, ACTIVITY_DAY))
        )
        self.last_completions = self._last_completions()

        self.records = rows("records", ProgressRecord, *calculations.Record._fields, "progress_percentage")
        self.enrollments = rows("enrollments", Enrollment, *calculations.Enrollment._fields)
        self.days = rows("days", ActivityDay, *calculations.ActivityDay._fields)
        self.tallies = rows("tallies", Tally, *Group._fields, "part", *Counts._fields)
        added = select(*self.tallies.c).where(true()).order_by(*(self.tallies.c[name] for name in Group._fields))
        self.store_tallies = Prepared(self.add_to_tallies(added))
        self.store = self._together(
            self._upsert(ProgressRecord, self.records, ["user_id", "content_id"]),
            self._upsert(Enrollment, self.enrollments, ["user_id", "module_id"]),
            self._upsert(ActivityDay, self.days, ["user_id", "module_id", "day"]),
            self.add_to_tallies(added),
        )

        self.weights = Rows(dialect, "weights", id=IDENTIFIER, weight=BigInteger(), contents=BigInteger())
        self.contents = rows("contents", Content, *(column.name for column in Content.__table__.c))
        self.store_contents = Prepared(self._upsert(Content, self.contents, ["id"], "module_id").returning(Content.id))

    def _share_modules(self, modules: Select[Any]) -> Prepared:
        """Hold off catalog changes of the modules, if they are few, for the transaction, and return their ids."""
        # Updates share this lock and run side by side; a catalog change takes it alone. Without it, an update that has
        # read the old catalog could commit after the change has recounted the module, and leave a stale total. It is
        # taken in a statement before the catalog is read, since what a statement reads is as old as its beginning.
        if not self._is_postgresql:
            return Prepared(modules.distinct())
        # By code point, as Python sorts, so that every transaction takes the locks of several modules in one order.
        module_id = modules.subquery("modules").c.module_id.collate("C").label("module_id")
        ordered = select(module_id).distinct().order_by("module_id").subquery("ordered").c
        counted = select(ordered.module_id, func.count().over().label("number")).subquery("counted").c
        lock = func.pg_advisory_xact_lock_shared(func.hashtextextended(counted.module_id, literal_column(str(CHANGES))))
        is_few = counted.number <= literal_column(str(MOST_LOCKS))
        locked = select(counted.module_id, case((is_few, cast(lock, String))).label("lock")).subquery("locked")
        return Prepared(select(locked.c.module_id))

    def _first_updates(self) -> FromClause:
        """Select each learner and module of the keys once, with the first of their times."""
        key = self.keys.c
        source, content = self.look_up(self.keys.table, Content, ["module_id"], id=key.content_id)
        first = func.row_number().over(partition_by=[key.user_id, content.module_id], order_by=key.place)
        ranked = select(key.user_id, content.module_id, key.enrolled_at, first.label("nth")).select_from(source)
        return select(ranked.subquery("ranked")).where(literal_column("nth") == 1).subquery("learners")

    def look_up(
        self, source: FromClause, model: type[Base], names: Sequence[str], *, outer: bool = False, **key: Any
    ) -> tuple[FromClause, Any]:
        """Join each row to those with a key in another table, and return their named columns too.

        PostgreSQL does not know how few rows come, and would rather read a small table whole: it has to go by the key.
        """
        table = model.__table__
        is_same = and_(*(table.c[name] == value for name, value in key.items()))
        if not self._is_postgresql:
            return source.join(table, is_same, isouter=outer), table.c
        one = select(*(table.c[name] for name in names)).where(is_same).offset(literal_column("0")).lateral()
        return source.join(one, true(), isouter=outer), one.c

    def _lock_enrollments(self, learners: FromClause, *, by_update: bool, counted: ColumnElement[bool]) -> Prepared:
        """Lock the learners' enrollments in order, making those that are missing.

        An update that changes nothing still locks its row on PostgreSQL; it returns only the enrollments that are new.
        """
        key = learners.c
        enrolling = select(
            key.user_id,
            key.module_id,
            literal(calculations.ACTIVE),
            key.enrolled_at,
            literal(by_update),
            counted,
            *(literal(0) for _ in TOTALS),
        )
        names = ["user_id", "module_id", "status", "enrolled_at", "enrolled_by_update", "counted", *TOTALS]
        return Prepared(
            self._insert(Enrollment)
            .from_select(names, enrolling.where(true()).order_by(key.user_id, key.module_id))
            .on_conflict_do_update(index_elements=OWNER, set_={"status": Enrollment.status}, where=false())
            .returning(Enrollment.user_id, Enrollment.module_id)
        )

    def _last_completions(self) -> Prepared:
        """Find the last completion of a counted content under each enrollment, but for the contents of the keys."""
        key, record = self.enrollment_keys.c, ProgressRecord
        reported = select(self.keys.c.user_id, self.keys.c.content_id)
        last = (
            select(func.max(record.completed_at))
            .join(Content, and_(Content.id == record.content_id, ~Content.retired, Content.weight > 0))
            .where(record.user_id == key.user_id, record.module_id == key.module_id)
            .where(tuple_(record.user_id, record.content_id).not_in(reported))
            .scalar_subquery()
        )
        return Prepared(select(key.user_id, key.module_id, last.label("completed_at")))

    def _read(self) -> Prepared:
        """Read all that updates of the keys build on; what there is not is null."""
        key = self.keys.c
        source, content = self.look_up(self.keys.table, Content, calculations.Content._fields, id=key.content_id)
        ours = {"user_id": key.user_id, "module_id": content.module_id}
        source, module = self.look_up(source, Module, calculations.Module._fields, id=content.module_id)
        source, enrollment = self.look_up(source, Enrollment, calculations.Enrollment._fields, outer=True, **ours)
        source, record = self.look_up(
            source,
            ProgressRecord,
            calculations.Record._fields,
            outer=True,
            user_id=key.user_id,
            content_id=key.content_id,
        )
        source, day = self.look_up(
            source, ActivityDay, calculations.ActivityDay._fields, outer=True, day=key.day, **ours
        )
        found = (
            (content, calculations.Content),
            (module, calculations.Module),
            (enrollment, calculations.Enrollment),
            (record, calculations.Record),
            (day, calculations.ActivityDay),
        )
        names = [columns[name] for columns, kind in found for name in kind._fields]
        return Prepared(select(key.user_id, key.content_id, *names).select_from(source))

    def add_to_tallies(self, changes: Select[Any]) -> Any:
        """Add changes, selected in the order of a tally's columns, to what is stored."""
        names = [*Group._fields, "part", *Counts._fields]
        statement = self._insert(Tally).from_select(names, changes)
        return statement.on_conflict_do_update(
            index_elements=names[: -len(Counts._fields)],
            set_={name: getattr(Tally, name) + statement.excluded[name] for name in Counts._fields},
        )

    def _together(self, *statements: Any) -> list[Prepared]:
        """Make one statement of several that do not read what another one writes, where the database takes that."""
        if not self._is_postgresql:
            return [Prepared(statement) for statement in statements]
        return [Prepared(select(literal(1)).add_cte(*(one.cte(f"stored_{n}") for n, one in enumerate(statements))))]

    def _upsert(self, model: type[Base], rows: Rows, key: list[str], *owner: str) -> Any:
        """Insert the rows or replace those with the same key, unless they belong to another owner."""
        names = list(rows.columns)
        statement = self._insert(model).from_select(
            names,
            select(*(rows.c[name] for name in names)).where(true()).order_by(*(rows.c[name] for name in key)),
        )
        fixed = {*key, *owner, "id"}
        return statement.on_conflict_do_update(
            index_elements=key,
            set_={name: statement.excluded[name] for name in names if name not in fixed},
            where=and_(true(), *(getattr(model, name) == statement.excluded[name] for name in owner)),
        )


def exclusive_lock(module_id: str, purpose: int) -> Select[Any]:
    """Hold off those who take a module's lock for the same purpose, until the transaction ends."""
    return select(func.pg_advisory_xact_lock(func.hashtextextended(module_id, purpose)))


def _same(model: type[Base], rows: Rows, *names: str) -> ColumnElement[bool]:
    return and_(*(getattr(model, name) == rows.c[name] for name in names))
