"""Publishing modules: their contents are stored, and the figures that depend on them are recounted."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, case, delete, exists, func, insert, literal, null, select, text, true, update
from sqlalchemy.orm import aliased

from progress_service import tallies
from progress_service.calculations import ACTIVE, Actor
from progress_service.store import journal, locks, recount
from progress_service.store.database import Outdated
from progress_service.store.journal import PUBLISHED, Change
from progress_service.store.models import (
    IDENTIFIER,
    Content,
    Enrollment,
    Module,
    ModuleInstructor,
    ProgressRecord,
    UtcDateTime,
)
from progress_service.store.recorder import Refused, tally_rows
from progress_service.store.statements import Statements
from progress_service.store.values import columns

READ_TOGETHER = 500
"""The most modules that one statement reads."""

Rules = dict[str, tuple[int, int | None]]
"""The completion threshold and the passing score of each content."""


class ContentElsewhere(Refused):
    """Contents are current in other modules, which are named."""

    def __init__(self, module_id: str, owners: dict[int, str]) -> None:
        """Refuse a module; the owners of its refused contents are given by the contents' places."""
        super().__init__(list(owners), list(owners.values()))
        self.module_id = module_id


class PublishedContent(NamedTuple):
    """A content of a module, as the platform publishes it."""

    id: str
    title: str
    type: str
    section: str | None
    weight: int
    completion_threshold: int
    passing_score: int | None


class PublishedModule(NamedTuple):
    """A module with its current contents, in order."""

    id: str
    title: str
    instructor_ids: Sequence[str]
    contents: Sequence[PublishedContent]


class Owner(NamedTuple):
    """The module of a content, and whether the content is retired."""

    module_id: str
    retired: bool


class Move(NamedTuple):
    """A content is published in another module than its own."""

    origin: str
    target: str
    content_id: str


def published(connection: Connection, module_ids: Sequence[str]) -> Iterator[PublishedModule]:
    """Read modules as they were last published; ids without a module are left out."""
    for start in range(0, len(module_ids), READ_TOGETHER):
        ids = module_ids[start : start + READ_TOGETHER]
        modules = select(Module.id, Module.title).where(Module.id.in_(ids)).order_by(Module.id)
        teaching = (
            select(ModuleInstructor.module_id, ModuleInstructor.user_id)
            .where(ModuleInstructor.module_id.in_(ids))
            .order_by(ModuleInstructor.ordinal)
        )
        current = (
            select(Content.module_id, *columns(Content, PublishedContent))
            .where(Content.module_id.in_(ids), ~Content.retired)
            .order_by(Content.ordinal)
        )
        instructor_ids, contents = defaultdict(list), defaultdict(list)
        for module_id, user_id in connection.execute(teaching):
            instructor_ids[module_id].append(user_id)
        for module_id, *content in connection.execute(current):
            contents[module_id].append(PublishedContent(*content))
        for module_id, title in connection.execute(modules):
            yield PublishedModule(module_id, title, instructor_ids[module_id], contents[module_id])


def publish(connection: Connection, module: PublishedModule, *, now: datetime, by: Actor) -> bool:
    """Publish a module with all its contents, and recount its enrollments where weights or rules have changed.

    Contents that are left out are retired. Contents that are retired in other modules move here with their records.
    A module that is stored as it is given stays untouched. Returns whether the module is new. Raises ContentElsewhere.
    """
    held = {module.id, *_origins(connection, [module])}
    locks.hold_modules(connection, held)
    if module in published(connection, [module.id]):
        return False
    return module.id in _publish(connection, [module], held, now, by)


def publish_all(connection: Connection, modules: Sequence[PublishedModule], *, now: datetime, by: Actor) -> None:
    """Publish modules as one, so that contents can move between them: a content leaves its module before it arrives.

    Modules that are stored as they are given stay untouched. Raises ContentElsewhere.
    """
    locks.hold_catalog(connection)
    stored = {module.id: module for module in published(connection, [module.id for module in modules])}
    changed = [module for module in modules if stored.get(module.id) != module]
    # No update of a new module can be under way.
    held = {module.id for module in changed if module.id in stored} | _origins(connection, changed)
    locks.hold_modules(connection, held)
    _publish(connection, changed, held, now, by)


def _origins(connection: Connection, modules: Sequence[PublishedModule]) -> set[str]:
    """Return the other modules in which contents of the modules are retired."""
    owners = _owners(connection, modules)
    return {owner.module_id for owner in owners.values() if owner.retired} - {module.id for module in modules}


def _publish(
    connection: Connection, modules: Sequence[PublishedModule], held: Collection[str], now: datetime, by: Actor
) -> set[str]:
    """Publish modules that differ from what is stored; return the ids of those that are new."""
    moves = _moves(connection, modules)
    if any(move.origin not in held for move in moves):
        raise Outdated  # retired since the locks were taken
    module_ids = [module.id for module in modules]
    touched = {module_id for move in moves for module_id in (move.origin, move.target)}
    weights = {module_id: _counted_weights(connection, module_id) for module_id in module_ids}
    rules: Rules = {}
    for module_id in {*module_ids, *touched}:
        rules |= _rules(connection, module_id)
    created = {module.id for module in modules if _store(connection, module)}
    told = [Change(PUBLISHED, now, by, module_id=id_, data={"created": id_ in created}) for id_ in module_ids]
    journal.write(connection, told, now)
    if moves:
        with _many_rows(connection):
            _move(connection, moves, now, by)
    for module in modules:
        _store_contents(connection, module)
        recount.denominators(connection, module.id)
    for module_id in sorted({*module_ids, *touched}):
        if module_id in touched:
            _recount_all(connection, module_id, rules, now, by)
        elif module_id not in created:
            _recount(connection, module_id, weights[module_id], rules, now, by)
    return created


def _owners(connection: Connection, modules: Sequence[PublishedModule]) -> dict[str, Owner]:
    """Find the modules of those contents that are in the catalog already."""
    sql = Statements.of(connection)
    ids = sql.ids((content.id,) for module in modules for content in module.contents)
    found = select(Content.id, Content.module_id, Content.retired).where(Content.id.in_(select(sql.ids.c.id)))
    rows = connection.execute(found, ids)
    return {content_id: Owner(module_id, retired) for content_id, module_id, retired in rows}


def _moves(connection: Connection, modules: Sequence[PublishedModule]) -> list[Move]:
    """Find the contents that move to another module. Raises ContentElsewhere."""
    owners = _owners(connection, modules)
    given = {module.id: {content.id for content in module.contents} for module in modules}
    taken = {
        content_id: owner.module_id
        for content_id, owner in owners.items()
        if not owner.retired and content_id in given.get(owner.module_id, owners)
    }
    moves = []
    for module in modules:
        elsewhere: dict[int, str] = {}
        for place, content in enumerate(module.contents):
            if (taker := taken.setdefault(content.id, module.id)) != module.id:
                elsewhere[place] = taker
            elif content.id in owners and owners[content.id].module_id != module.id:
                moves.append(Move(owners[content.id].module_id, module.id, content.id))
        if elsewhere:
            raise ContentElsewhere(module.id, elsewhere)
    return moves


def _store(connection: Connection, module: PublishedModule) -> bool:
    """Store a module with its instructors, and retire its contents; return whether the module is new."""
    titled = update(Module).filter_by(id=module.id).values(title=module.title)
    is_new = not connection.execute(titled).rowcount
    if is_new:
        connection.execute(insert(Module).values(id=module.id, title=module.title, total_weight=0, total_contents=0))
    connection.execute(update(Content).filter_by(module_id=module.id).values(retired=True))
    connection.execute(delete(ModuleInstructor).filter_by(module_id=module.id))
    if module.instructor_ids:
        teaching = [
            {"module_id": module.id, "user_id": user_id, "ordinal": ordinal}
            for ordinal, user_id in enumerate(module.instructor_ids)
        ]
        connection.execute(insert(ModuleInstructor), teaching)
    return is_new


def _move(connection: Connection, moves: Sequence[Move], now: datetime, by: Actor) -> None:
    """Move retired contents to other modules; their records follow (see `models.ProgressRecord`)."""
    of_targets: dict[str, list[Move]] = defaultdict(list)
    for move in moves:
        of_targets[move.target].append(move)
    for target, arriving in of_targets.items():
        _enroll(connection, target, arriving, now, by)
        sql = Statements.of(connection)
        moved = update(Content).where(Content.id.in_(select(sql.ids.c.id))).values(module_id=target)
        connection.execute(moved, sql.ids((move.content_id,) for move in arriving))


def _enroll(connection: Connection, target: str, moves: Sequence[Move], now: datetime, by: Actor) -> None:
    """Enroll the learners of moving contents in the module where these arrive, as of their start on them.

    A learner who counts in none of the modules that they come from does not count here either.
    """
    sql = Statements.of(connection)
    locks.share_enrolling(connection, sql.share_enrolling, sql.ids((group,) for group in locks.LEARNER_GROUPS))
    rows, move = sql.moves((move.content_id, move.origin) for move in moves), sql.moves.c
    names = ["user_id", "started_at"]
    source, record = sql.look_up(sql.moves.table, ProgressRecord, names, module_id=move.module_id, content_id=move.id)
    owner = {"user_id": record.user_id, "module_id": move.module_id}
    source, enrolled = sql.look_up(source, Enrollment, ["counted"], **owner)
    known = aliased(Enrollment)
    learner = (
        select(
            record.user_id,
            literal(target, IDENTIFIER).label("module_id"),
            func.coalesce(func.min(record.started_at), literal(now, UtcDateTime())).label("enrolled_at"),
            (func.max(case((enrolled.counted, 1), else_=0)) == 1).label("counted"),
        )
        .select_from(source)
        .where(~exists().where(known.user_id == record.user_id, known.module_id == target))
        .group_by(record.user_id)
        .subquery("learners")
    ).c
    told = {counted: f'{{"status":"{ACTIVE}","counted":{counted}}}' for counted in ("true", "false")}
    data = case((learner.counted, told["true"]), else_=told["false"])
    journal.write_selected(
        connection, journal.ENROLLED, learner, null(), data, [], by, now, rows, time=learner.enrolled_at
    )
    enrolling = {
        **{name: learner[name] for name in ("user_id", "module_id", "enrolled_at", "counted")},
        "status": literal(ACTIVE),
        "enrolled_by_update": true(),
        **{name: literal(0) for name in recount.SUMS},
    }
    connection.execute(insert(Enrollment).from_select(list(enrolling), select(*enrolling.values())), rows)


@contextmanager
def _many_rows(connection: Connection) -> Iterator[None]:
    """Let PostgreSQL join as many rows: its statistics do not know yet how many records this transaction has moved.

    It would take them for a few and compare each with each, which took 25 s for 4,000 learners, and now takes 1.
    """
    is_postgresql = connection.dialect.name == "postgresql"
    if is_postgresql:
        connection.execute(text("SET LOCAL enable_nestloop = off"))
    yield
    if is_postgresql:
        connection.execute(text("SET LOCAL enable_nestloop = DEFAULT"))


def _store_contents(connection: Connection, module: PublishedModule) -> None:
    """Store the contents of a module."""
    sql = Statements.of(connection)
    rows = [
        {"module_id": module.id, "ordinal": ordinal, "retired": False, **content._asdict()}
        for ordinal, content in enumerate(module.contents)
    ]
    names = sql.contents.columns
    stored = sql.store_contents.run(connection, **sql.contents([row[name] for name in names] for row in rows))
    if len(stored) < len(rows):
        raise Outdated  # published in another module since this transaction has looked


def _recount_all(connection: Connection, module_id: str, rules: Rules, now: datetime, by: Actor) -> None:
    """Recount a module from which contents have moved, or to which they have moved."""
    with _many_rows(connection):
        _complete_records(connection, module_id, rules, now, by)
        recount.totals(connection, module_id, now, by)
        recount.tallies(connection, module_id)


def _recount(
    connection: Connection, module_id: str, weights: recount.Weights, rules: Rules, now: datetime, by: Actor
) -> None:
    """Change records, enrollments and tallies where weights or completion rules differ from the earlier ones."""
    new_weights = _counted_weights(connection, module_id)
    completed = _complete_records(connection, module_id, rules, now, by)
    if completed:
        enrollments_completed = recount.totals(connection, module_id, now, by, recount.RULED_TOTALS)
    elif weights != new_weights:
        enrollments_completed = recount.reweigh(connection, module_id, weights, new_weights, now, by)
    else:
        return
    of_unfinished = (tallies.LAST_WEEK, tallies.LAST_DAY) if enrollments_completed else ()
    recount.tallies(connection, module_id, (tallies.STATUS, tallies.PERCENTAGE, *of_unfinished))
    changes = tallies.Changes()
    for content_id, number in completed.items():
        changes[tallies.Group(module_id, tallies.CONTENT, content_id)] = tallies.Counts(completed=number)
    today = tallies.Group(module_id, tallies.DAY, str(now.date()))
    changes[today] = tallies.Counts(completed=sum(completed.values()), enrollments_completed=enrollments_completed)
    sql = Statements.of(connection)
    sql.store_tallies.run(connection, **sql.tallies(tally_rows(changes)))


def _complete_records(connection: Connection, module_id: str, rules: Rules, now: datetime, by: Actor) -> dict[str, int]:
    """Complete the records that fulfil a rule which differs from the earlier one (see `recount.completions`)."""
    changed = [
        content_id for content_id, rule in _rules(connection, module_id).items() if rules.get(content_id, rule) != rule
    ]
    return recount.completions(connection, module_id, now, by, content_ids=changed) if changed else {}


def _counted_weights(connection: Connection, module_id: str) -> recount.Weights:
    is_counted = Content.module_id == module_id, ~Content.retired, Content.weight > 0
    return dict(connection.execute(select(Content.id, Content.weight).where(*is_counted)).all())


def _rules(connection: Connection, module_id: str) -> Rules:
    rules = select(Content.id, Content.completion_threshold, Content.passing_score).filter_by(module_id=module_id)
    return {content_id: (threshold, passing) for content_id, threshold, passing in connection.execute(rules)}
