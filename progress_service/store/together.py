"""Items that arrive together are written together: those that arrive during a transaction share the next.

A single update waits for its database twice, and its server works as much for a transaction of one update as for
one of twenty. So the thread that finds nobody before it leads: it takes all that wait, writes them in one transaction,
and hands the lead to the next that waits. Nobody waits for a timer, and an item that finds nobody runs at once.

The items of a group do not depend on one another. Refused items are left out, and the others are tried again without
them. If anything else goes wrong, above all if a lock is not free at once, each item of the group goes alone, with the
patience and the retries of `database.write`. An item also goes alone if the transaction before it takes long. If the
commit may have succeeded although there is an error, the error is everybody's.
"""

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from threading import Event, Lock
from typing import Generic, TypeVar

from flask import current_app

from progress_service import facts, figures
from progress_service.store import database
from progress_service.store.recorder import Refused

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

LARGEST_GROUP = 100
"""The most items of one transaction."""
LONGEST_WAIT = 0.5
"""The most seconds that an item waits for the transaction before its own; then it goes alone."""


class _Member(Generic[Item, Outcome]):
    """An item on its way: its outcome is None until it is written or refused, or if it must go alone."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.outcome: Outcome | Exception | None = None
        self.spent: facts.Spent | None = None
        self.leads = False
        self.woken = Event()


class Together(Generic[Item, Outcome]):
    """Writes items by `work(connection, items=…)`.

    The work returns an outcome or an exception for each item, or raises `Refused` with the places of items. Items with
    the same `name` never share a transaction.
    """

    def __init__(
        self,
        work: Callable[..., Sequence[Outcome | Exception]],
        name: Callable[[Item], Hashable | None],
    ) -> None:
        self._work, self._name = work, name
        self._waiting: deque[_Member[Item, Outcome]] = deque()
        self._is_led = False
        self._lock = Lock()

    def write(self, item: Item) -> Outcome:
        """Write an item, together with those that wait, and return its outcome. Raises its exception."""
        member = _Member[Item, Outcome](item)
        with self._lock:
            self._waiting.append(member)
            member.leads, self._is_led = not self._is_led, True
        if not member.leads and not member.woken.wait(LONGEST_WAIT) and not self._leave(member):
            member.woken.wait()
        if member.leads:
            self._lead()
        if member.spent:
            facts.current().spent.add(member.spent)
        if member.outcome is None:
            facts.current().spent.group = 1
            (member.outcome,) = database.write(partial(self._work, items=[item]))
            figures.own().groups.observe(1)
        if isinstance(member.outcome, Exception):
            raise member.outcome
        return member.outcome

    def _leave(self, member: _Member[Item, Outcome]) -> bool:
        """Take an item out of the queue; tell whether it was there, and not in a group already."""
        with self._lock:
            is_waiting = member in self._waiting and not member.leads
            if is_waiting:
                self._waiting.remove(member)
        return is_waiting

    def _lead(self) -> None:
        """Write a group, wake its members, and hand on the lead."""
        group = self._take()
        try:
            with facts.apart() as spent:
                self._write(group)
        finally:
            with self._lock:
                self._is_led = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].leads = True
                    self._waiting[0].woken.set()
            for member in group:
                member.spent = spent
                member.woken.set()

    def _take(self) -> list[_Member[Item, Outcome]]:
        """Take those that wait, the leader first; of several with one name only the first."""
        group: list[_Member[Item, Outcome]] = []
        left, names = [], set()
        with self._lock:
            while self._waiting and len(group) < LARGEST_GROUP:
                member = self._waiting.popleft()
                name = self._name(member.item)
                if name is not None and name in names:
                    left.append(member)
                else:
                    group.append(member)
                    names.add(name)
            self._waiting.extendleft(reversed(left))
        return group

    def _write(self, group: list[_Member[Item, Outcome]]) -> None:
        while group:
            work = partial(self._work, items=[member.item for member in group])
            try:
                outcomes, commit = database.write_once(work)
            except Refused as refused:
                for place in refused.places:
                    group[place].outcome = type(refused)([0])
                group = [member for member in group if member.outcome is None]
                facts.note_retry(refused)
                continue
            except Exception as error:
                current_app.logger.info("%d go alone after %s", len(group), facts.note_retry(error))
                return
            try:
                commit()
            except Exception as error:
                if database.is_undone(error):
                    current_app.logger.info("%d go alone after %s", len(group), facts.note_retry(error))
                    return
                outcomes = [error] * len(group)
            for member, outcome in zip(group, outcomes, strict=True):
                member.outcome = outcome
            facts.current().spent.group = len(group)
            figures.own().groups.observe(len(group))
            return
