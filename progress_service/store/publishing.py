"""Publishing a module: its contents are stored, and the figures that depend on them are recounted."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from progress_service import tallies
from progress_service.calculations import Actor
from progress_service.store import locks, recount
from progress_service.store.models import Content, Module, ModuleInstructor
from progress_service.store.recorder import ContentElsewhere, refuse, tally_rows
from progress_service.store.statements import Statements

Rules = dict[str, tuple[int, int | None]]
"""The completion threshold and the passing score of each content."""


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


def publish(
    connection: Connection, module: PublishedModule, *, now: datetime, by: Actor, is_locked: bool = False
) -> bool:
    """Publish a module with all its contents, and recount its enrollments where weights or rules have changed.

    Contents that are left out are retired. With `is_locked` the caller already holds the module (`locks.hold_modules`).
    Returns whether the module is new. Raises ContentElsewhere.
    """
    if not is_locked:
        locks.hold_modules(connection, [module.id])
    weights, rules = _counted_weights(connection, module.id), _rules(connection, module.id)
    is_new = _store(connection, module)
    recount.denominators(connection, module.id)
    if not is_new:
        _recount(connection, module.id, weights, rules, now, by)
    return is_new


def _store(connection: Connection, module: PublishedModule) -> bool:
    """Store a module with its contents and instructors; return whether it is new."""
    sql = Statements.of(connection)
    titled = update(Module).filter_by(id=module.id).values(title=module.title)
    is_new = not connection.execute(titled).rowcount
    if is_new:
        connection.execute(insert(Module).values(id=module.id, title=module.title, total_weight=0, total_contents=0))
    connection.execute(update(Content).filter_by(module_id=module.id).values(retired=True))
    rows = [
        {"module_id": module.id, "ordinal": ordinal, "retired": False, **content._asdict()}
        for ordinal, content in enumerate(module.contents)
    ]
    names = sql.contents.columns
    stored = sql.store_contents.run(connection, **sql.contents([row[name] for name in names] for row in rows))
    content_ids = {content_id for (content_id,) in stored}
    refuse(ContentElsewhere, [content.id in content_ids for content in module.contents])
    connection.execute(delete(ModuleInstructor).filter_by(module_id=module.id))
    if module.instructor_ids:
        teaching = [
            {"module_id": module.id, "user_id": user_id, "ordinal": ordinal}
            for ordinal, user_id in enumerate(module.instructor_ids)
        ]
        connection.execute(insert(ModuleInstructor), teaching)
    return is_new


def _recount(
    connection: Connection, module_id: str, weights: recount.Weights, rules: Rules, now: datetime, by: Actor
) -> None:
    """Change records, enrollments and tallies where weights or completion rules differ from the earlier ones."""
    new_weights, new_rules = _counted_weights(connection, module_id), _rules(connection, module_id)
    changed = [content_id for content_id, rule in rules.items() if new_rules[content_id] != rule]
    completed = recount.completions(connection, module_id, now, by, content_ids=changed) if changed else {}
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


def _counted_weights(connection: Connection, module_id: str) -> recount.Weights:
    is_counted = Content.module_id == module_id, ~Content.retired, Content.weight > 0
    return dict(connection.execute(select(Content.id, Content.weight).where(*is_counted)).all())


def _rules(connection: Connection, module_id: str) -> Rules:
    rules = select(Content.id, Content.completion_threshold, Content.passing_score).filter_by(module_id=module_id)
    return {content_id: (threshold, passing) for content_id, threshold, passing in connection.execute(rules)}
