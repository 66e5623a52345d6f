"""Random histories over HTTP, beside a model of the contract in plain Python that knows nothing of the service."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from math import floor
from typing import Any

import pytest
from flask import Flask
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select
from werkzeug.test import TestResponse

from progress_service.store.database import db
from progress_service.store.models import Change
from tests.callers import Caller
from tests.conftest import examples

MODULES = {"algebra": ["sums", "quiz"], "biology": ["cells"]}
TYPES = {"sums": "video", "quiz": "quiz", "cells": "video"}
SECTIONS = {"sums": "One", "quiz": None, "cells": "One"}
LEARNERS = ["kim", "sam"]
DAYS = ["2024-02-28", "2024-02-29", "2024-03-01"]


# A history is short enough to be read as it is; making it shorter takes minutes.
FEW = settings(max_examples=examples(8), stateful_step_count=15, phases=(Phase.reuse, Phase.generate))


def rounded(value: Fraction) -> float:
    return floor(value * 100) / 100


def earliest(*times: str | None) -> str | None:
    return min(filter(None, times), default=None)


def best(*scores: tuple[int, int] | None) -> tuple[int, int] | None:
    return max(filter(None, scores), key=lambda one: (Fraction(*one), one[1]), default=None)


class Recent:
    """A time of the test's own run."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other > "2026"

    __hash__ = None  # type: ignore[assignment]


def shown_time(at: str | None) -> Any:
    return at and (f"{at}T12:00:00Z" if at in DAYS else Recent())


def ratio(numerator: Fraction | int, denominator: int) -> float | None:
    return rounded(Fraction(numerator) / denominator) if denominator else None


@dataclass
class Content:
    id: str
    weight: int
    threshold: int
    passing: int | None
    is_current: bool = True

    def passes(self, score: tuple[int, int] | None) -> bool:
        return self.passing is None or (score is not None and 100 * Fraction(*score) >= self.passing)


def fulfilled(reached: str | None, passed: str | None, content: Content) -> str | None:
    if reached and (passed or content.passing is None):
        return max(reached, passed or reached)
    return None


@dataclass
class Record:
    started: str | None = None
    latest: str | None = None
    furthest: int = 0
    seconds: int = 0
    score: tuple[int, int] | None = None
    reached: str | None = None
    passed: str | None = None
    completed: str | None = None
    excused: str | None = None

    @property
    def done(self) -> str | None:
        return earliest(self.completed, self.excused)

    @property
    def percentage(self) -> int:
        return 100 if self.done else min(self.furthest, 99)

    @property
    def status(self) -> str:
        return "excused" if self.excused else "completed" if self.completed else "in_progress"

    def milestones(self, content: Content) -> tuple[str | None, str | None]:
        """Return since when at the latest the threshold and the passing score are reached, by the rule as it stands."""
        by_then = self.completed or self.latest or self.excused
        is_reached = self.completed or self.furthest >= content.threshold
        has_passed = content.passing is not None and content.passes(self.score)
        return (self.reached or by_then) if is_reached else None, (self.passed or by_then) if has_passed else None


@dataclass
class Enrollment:
    status: str = "active"
    enrolled: str = ""
    is_by_update: bool = False
    is_counted: bool = True
    completed: str | None = None
    is_credited: bool = False
    latest: str = ""
    last: str = ""
    """The content of the latest update."""
    seconds_of_day: Counter[str] = field(default_factory=Counter)


class CriteriaNotMet(Exception):
    pass


class Model:
    """What the contract says of everything that was done."""

    def __init__(self) -> None:
        self.catalog: dict[str, Content] = {}
        self.order: dict[str, list[str]] = {}
        self.home = {content_id: module_id for module_id, ids in MODULES.items() for content_id in ids}
        """The module to which each content belongs."""
        self.records: dict[tuple[str, str], Record] = {}
        self.sessions: dict[tuple[str, str, str], int] = {}
        self.enrollments: dict[tuple[str, str], Enrollment] = {}
        self.clock = 0

    @property
    def now(self) -> str:
        """The present, later than all days and than every earlier present, as times are compared here."""
        return f"now {self.clock:03}"

    def publish(self, module_id: str, contents: Iterable[Content]) -> None:
        for content in self.of_module(module_id):
            content.is_current = False
        touched = {module_id, *(self.move(content.id, module_id) for content in contents)}
        self.order[module_id] = [content.id for content in contents]
        self.catalog |= {content.id: content for content in contents}
        for (_, content_id), record in self.records.items():
            content = self.catalog[content_id]
            is_relaxed = content_id in self.order[module_id] and record.furthest >= content.threshold
            if is_relaxed and content.passes(record.score) and not record.completed:
                record.completed = self.now
        for user_id, enrolled_in in self.enrollments:
            if enrolled_in in touched:
                self.refresh(user_id, enrolled_in)
            if enrolled_in == module_id:
                self.settle(user_id, module_id, self.now)

    def move(self, content_id: str, module_id: str) -> str:
        """Move a content with its records to a module, where it may be already; return the module it comes from."""
        origin, self.home[content_id] = self.home[content_id], module_id
        for (user_id, content), record in self.records.items():
            if content == content_id and origin != module_id:
                is_counted, started = self.enrollments[user_id, origin].is_counted, record.started or self.now
                arriving = Enrollment(enrolled=started, is_by_update=True, is_counted=is_counted)
                enrollment = self.enrollments.setdefault((user_id, module_id), arriving)
                if enrollment.is_by_update:
                    enrollment.enrolled = min(enrollment.enrolled, started)
        return origin

    def of_module(self, module_id: str) -> list[Content]:
        return [one for one in self.catalog.values() if self.home[one.id] == module_id]

    def current(self, module_id: str) -> list[Content]:
        return [self.catalog[content_id] for content_id in self.order[module_id]]

    def counted(self, module_id: str) -> list[Content]:
        return [one for one in self.current(module_id) if one.weight]

    def update(
        self,
        user_id: str,
        content_id: str,
        at: str,
        percentage: int = 0,
        seconds: int = 0,
        score: tuple[int, int] | None = None,
        completes: bool = False,
        session: str | None = None,
    ) -> None:
        content, module_id = self.catalog[content_id], self.home[content_id]
        record = self.records.get((user_id, content_id)) or Record()
        if completes and not content.passes(best(record.score, score)) and not record.completed:
            raise CriteriaNotMet
        if session:
            total = self.sessions.get((user_id, content_id, session), 0)
            self.sessions[user_id, content_id, session] = max(total, seconds)
            seconds = max(0, seconds - total)
        reached, passed = known = record.milestones(content)
        if completes or percentage >= content.threshold:
            reached = earliest(reached, at)
        if content.passing is not None and content.passes(score):
            passed = earliest(passed, at)
        record.reached, record.passed = reached, passed
        record.started, record.latest = earliest(record.started, at), max(record.latest or at, at)
        record.furthest = max(record.furthest, percentage)
        record.seconds += seconds
        record.score = best(record.score, score)
        before = self.last_completion(user_id, module_id)
        if not record.completed or (reached, passed) != known:
            record.completed = earliest(record.completed, fulfilled(reached, passed, content))
        self.records[user_id, content_id] = record
        enrollment = self.enrollments.setdefault((user_id, module_id), Enrollment(enrolled=at, is_by_update=True))
        if enrollment.is_by_update:
            enrollment.enrolled = min(enrollment.enrolled, at)
        enrollment.seconds_of_day[at] += seconds
        if at >= enrollment.latest:
            enrollment.latest, enrollment.last = at, content_id
        last = self.last_completion(user_id, module_id)
        if last and enrollment.completed and enrollment.completed == before and not enrollment.is_credited:
            enrollment.completed = min(last, enrollment.completed)
        self.settle(user_id, module_id, last)

    def last_completion(self, user_id: str, module_id: str) -> str | None:
        """Return when the last of a learner's counted contents was completed."""
        counted = {one.id for one in self.counted(module_id)}
        ours = (one for (user, content), one in self.records.items() if user == user_id and content in counted)
        return max((one.done for one in ours if one.done), default=None)

    def settle(self, user_id: str, module_id: str, at: str | None) -> None:
        enrollment = self.enrollments[user_id, module_id]
        counted = self.counted(module_id)
        if enrollment.status in {"active", "paused"} and counted and self.done(user_id, module_id) == len(counted):
            enrollment.status, enrollment.completed = "completed", at

    def enroll(
        self,
        user_id: str,
        module_id: str,
        status: str | None = None,
        is_counted: bool | None = None,
        completed: str | None = None,
    ) -> None:
        enrollment = self.enrollments.setdefault((user_id, module_id), Enrollment(enrolled=self.now))
        if is_counted is not None:
            enrollment.is_counted = is_counted
        if "completed" in {status, enrollment.status}:
            credited = completed or enrollment.completed or self.now
            if credited != enrollment.completed:
                enrollment.status, enrollment.completed, enrollment.is_credited = "completed", credited, True
        elif status:
            enrollment.status = status
        self.settle(user_id, module_id, self.now)

    def reset(self, user_id: str, module_id: str) -> None:
        for content in self.of_module(module_id):
            self.forget(user_id, content.id)
        if one := self.enrollments.get((user_id, module_id)):
            status = "active" if one.status == "completed" else one.status
            self.enrollments[user_id, module_id] = Enrollment(status, one.enrolled, one.is_by_update, one.is_counted)

    def withdraw(self, user_id: str, module_id: str) -> None:
        self.reset(user_id, module_id)
        self.enrollments.pop((user_id, module_id), None)

    def erase(self, user_id: str) -> None:
        for module_id in MODULES:
            self.withdraw(user_id, module_id)

    def forget(self, user_id: str, content_id: str) -> None:
        self.records.pop((user_id, content_id), None)
        self.sessions = {key: one for key, one in self.sessions.items() if key[:2] != (user_id, content_id)}

    def remove(self, user_id: str, content_id: str) -> None:
        self.forget(user_id, content_id)
        self.refresh(user_id, self.home[content_id])

    def correct(self, user_id: str, content_id: str, given: dict[str, Any]) -> None:
        record, content = self.records[user_id, content_id], self.catalog[content_id]
        reached, passed = record.milestones(content)
        record.furthest = given.get("progressPercentage", record.furthest)
        record.seconds = given.get("timeSpentSeconds", record.seconds)
        if "score" in given:
            record.score = None if given["score"] is None else (given["score"], given["maxScore"])
        if "progressPercentage" in given or "score" in given:
            is_reached, has_passed = record.furthest >= content.threshold, content.passes(record.score)
            record.reached = (reached or self.now) if is_reached else None
            record.passed = (passed or self.now) if has_passed and content.passing is not None else None
            record.completed = (record.completed or self.now) if is_reached and has_passed else None
        self.settle(user_id, self.home[content_id], self.now)

    def excuse(self, user_id: str, content_id: str) -> None:
        record = self.records.setdefault((user_id, content_id), Record())
        record.excused = record.excused or self.now
        self.enroll(user_id, self.home[content_id])

    def withdraw_excuse(self, user_id: str, content_id: str) -> None:
        if record := self.records.get((user_id, content_id)):
            record.excused = None
            if not record.started:
                self.remove(user_id, content_id)

    def refresh(self, user_id: str, module_id: str) -> None:
        """Find the latest update under an enrollment again; of several at one time any may have been the last."""
        if enrollment := self.enrollments.get((user_id, module_id)):
            latest = {
                content: one.latest
                for (user, content), one in self.records.items()
                if user == user_id and self.home[content] == module_id and one.latest
            }
            enrollment.latest = max(latest.values(), default="")
            last = [content for content, at in latest.items() if at == enrollment.latest]
            if enrollment.last not in last:
                enrollment.last = max(last, default="")

    def merge(self, user_id: str, into: str) -> None:
        """Fold a learner into another, as if every update had been of one learner."""
        for module_id in [module for user, module in self.enrollments if user == user_id]:
            was = {one: self.last_completion(one, module_id) for one in (user_id, into)}
            twice = sum(self.merge_record(user_id, into, one.id) for one in self.of_module(module_id))
            first = self.enrollments.pop((user_id, module_id))
            second = self.enrollments.get((into, module_id))
            for day in sorted(first.seconds_of_day, reverse=True):  # which days lose what was told twice is open
                left_out = min(twice, first.seconds_of_day[day])
                first.seconds_of_day[day] -= left_out
                twice -= left_out
            if second is None:
                self.enrollments[into, module_id] = first
                continue
            for day, seconds in first.seconds_of_day.items():
                second.seconds_of_day[day] += seconds
            if second.is_by_update:
                by_update = first.is_by_update
                second.enrolled = min(first.enrolled, second.enrolled) if by_update else first.enrolled
                second.is_by_update = by_update
            completed = [(one, was[user]) for one, user in ((second, into), (first, user_id)) if one.completed]
            last = self.last_completion(into, module_id)
            if completed:
                credited = next((one.completed for one, _ in completed if one.is_credited), None)
                moved = last if any(one.completed == at for one, at in completed) else None
                dates = [one.completed for one, _ in completed]
                second.status, second.is_credited = "completed", credited is not None
                second.completed = credited or earliest(*dates, moved)
            self.refresh(into, module_id)
            self.settle(into, module_id, last)

    def merge_record(self, user_id: str, into: str, content_id: str) -> int:
        """Fold one record into another; return the seconds that both learners told of one session."""
        twice = 0
        for _, _, session in [key for key in self.sessions if key[:2] == (user_id, content_id)]:
            told = self.sessions.pop((user_id, content_id, session))
            known = self.sessions.get((into, content_id, session), 0)
            self.sessions[into, content_id, session] = max(told, known)
            twice += min(told, known)
        first = self.records.pop((user_id, content_id), None)
        second = self.records.setdefault((into, content_id), first) if first else None
        if first is None or second is None or first is second:
            return 0
        content = self.catalog[content_id]
        known_of = [(one.completed, one.milestones(content)) for one in (first, second)]
        (reached, passed), (other_reached, other_passed) = (milestones for _, milestones in known_of)
        reached, passed = earliest(reached, other_reached), earliest(passed, other_passed)
        is_news = not any(completed and one == (reached, passed) for completed, one in known_of)
        anew = fulfilled(reached, passed, content) if is_news else None
        second.completed = earliest(first.completed, second.completed, anew)
        second.reached, second.passed = reached, passed
        second.started = earliest(first.started, second.started)
        second.latest = max(filter(None, (first.latest, second.latest)), default=None)
        second.furthest = max(first.furthest, second.furthest)
        second.seconds = max(first.seconds + second.seconds - twice, first.seconds, second.seconds)
        second.score = best(first.score, second.score)
        second.excused = earliest(first.excused, second.excused)
        return twice

    def done(self, user_id: str, module_id: str) -> int:
        records = (self.records.get((user_id, one.id)) for one in self.counted(module_id))
        return sum(record is not None and record.done is not None for record in records)

    def seconds(self, user_id: str, module_id: str) -> int:
        return sum(
            one.seconds
            for (user, content), one in self.records.items()
            if (user, self.home[content]) == (user_id, module_id)
        )

    def progress(self, user_id: str, module_id: str) -> Fraction:
        weights = {one.id: one.weight for one in self.counted(module_id)}
        records = {one: self.records.get((user_id, one)) for one in weights}
        reached = sum(weights[one] * record.percentage for one, record in records.items() if record)
        return Fraction(reached, sum(weights.values()) or 1)

    def told(self) -> "Told":
        """Return what somebody must know who has read the journal."""
        return Told(
            {key: (one.status, one.is_counted) for key, one in self.enrollments.items()},
            {key for key, record in self.records.items() if record.completed},
            {key for key, record in self.records.items() if record.excused},
        )

    # What the documents must say.

    def enrollment(self, user_id: str, module_id: str) -> dict[str, Any] | None:
        enrollment = self.enrollments.get((user_id, module_id))
        if enrollment is None:
            return None
        return {
            "userId": user_id,
            "moduleId": module_id,
            "status": enrollment.status,
            "progressPercentage": rounded(self.progress(user_id, module_id))
            if self.counted(module_id)
            else 100 * (enrollment.status == "completed"),
            "completedContents": self.done(user_id, module_id),
            "totalContents": len(self.counted(module_id)),
            "timeSpentSeconds": self.seconds(user_id, module_id),
            "enrolledAt": shown_time(enrollment.enrolled),
            "completedAt": shown_time(enrollment.completed),
            "lastActivityAt": shown_time(enrollment.latest or None),
        }

    def record(self, user_id: str, content_id: str) -> dict[str, Any] | None:
        record = self.records.get((user_id, content_id))
        if record is None:
            return None
        return {
            "userId": user_id,
            "contentId": content_id,
            "moduleId": self.home[content_id],
            "status": record.status,
            "progressPercentage": record.percentage,
            "timeSpentSeconds": record.seconds,
            "score": record.score and record.score[0],
            "maxScore": record.score and record.score[1],
            "scorePercentage": record.score and rounded(100 * Fraction(*record.score)),
            "startedAt": shown_time(record.started),
            "completedAt": shown_time(record.completed),
            "lastActivityAt": shown_time(record.latest),
        }

    def explained(self, user_id: str, content: Content) -> dict[str, Any]:
        """Return what the view of a module says of a content beside the record."""
        record = self.records.get((user_id, content.id)) or Record()
        total = sum(one.weight for one in self.counted(self.home[content.id]))
        is_missing = {"progress": record.furthest < content.threshold, "score": not content.passes(record.score)}
        return {
            "contentId": content.id,
            "weight": content.weight,
            "completionThreshold": content.threshold,
            "passingScore": content.passing,
            "share": ratio(100 * content.weight, total) or 0,
            "contributed": ratio(content.weight * record.percentage, total) or 0,
            "missing": [] if record.done else [name for name in is_missing if is_missing[name]],
        }

    def summary(self, user_id: str) -> dict[str, Any]:
        modules = [
            module_id
            for (user, module_id), one in self.enrollments.items()
            if user == user_id and one.status != "dropped"
        ]
        statuses = Counter(self.enrollments[user_id, one].status for one in modules)
        weighted = [one for one in modules if self.counted(one)]
        return {
            "enrolledModules": len(modules),
            "activeModules": statuses["active"],
            "completedModules": statuses["completed"],
            "totalContents": sum(len(self.counted(one)) for one in modules),
            "completedContents": sum(self.done(user_id, one) for one in modules),
            "progressPercentage": ratio(
                sum((self.progress(user_id, one) for one in weighted), Fraction()), len(weighted)
            ),
            "timeSpentSeconds": sum(self.seconds(user_id, one) for one in modules),
        }

    def following(self, user_id: str) -> set[str]:
        """Return where a learner may go on: in one of the modules worked on at the latest time, if in any."""
        places = {
            module_id: content_id
            for (user, module_id), one in self.enrollments.items()
            if user == user_id and one.status != "dropped" and (content_id := self.next_in(user_id, module_id))
        }
        latest = max((self.enrollments[user_id, one].latest for one in places), default="")
        return {content for module, content in places.items() if self.enrollments[user_id, module].latest == latest}

    def next_in(self, user_id: str, module_id: str) -> str | None:
        """Return the content of a module on which a learner goes on."""
        enrollment, order = self.enrollments[user_id, module_id], self.order[module_id]
        records = {content: record for (user, content), record in self.records.items() if user == user_id}
        is_open = {one.id: one.id not in records or not records[one.id].done for one in self.current(module_id)}
        counted = [one.id for one in self.counted(module_id) if is_open[one.id]]
        optional = [one for one in order if is_open[one] and not self.catalog[one].weight]
        if not counted and enrollment.status == "completed":
            return None
        if is_open.get(enrollment.last):
            return enrollment.last
        after = order[order.index(enrollment.last) :] if enrollment.last in order else []
        for unfinished in (counted, optional):
            for content_id in unfinished:
                if content_id in after:
                    return content_id
            for content_id in unfinished:
                return content_id
        return None

    def statistics(self, module_id: str) -> dict[str, Any]:
        learners = self.learners(module_id)
        started = {user for user, one in learners.items() if one.latest}
        statuses = Counter(one.status for one in learners.values())
        staying = [user for user, one in learners.items() if one.status != "dropped"]
        reached = sorted(self.progress(user, module_id) for user in staying) if self.counted(module_id) else []
        seconds = sum(self.seconds(user, module_id) for user in learners)
        return {
            "learners": {
                "enrolled": len(learners),
                **{status: statuses[status] for status in ("active", "paused", "dropped", "completed")},
                "started": len(started),
                "notStarted": len(learners) - len(started),
            },
            "completionRate": ratio(100 * statuses["completed"], len(staying)),
            "averageProgressPercentage": ratio(sum(reached, Fraction()), len(reached)),
            "medianProgressPercentage": floor(reached[(len(reached) - 1) // 2]) if reached else None,
            "progressDistribution": [sum(one // 10 == bucket for one in reached) for bucket in range(11)],
            "timeSpent": {"totalSeconds": seconds, "averageSecondsPerLearner": ratio(seconds, len(started))},
        }

    def learners(self, module_id: str) -> dict[str, Enrollment]:
        """Return who counts in a module's statistics."""
        return {user: one for (user, module), one in self.enrollments.items() if module == module_id and one.is_counted}

    def counting(self, content_ids: Iterable[str]) -> list[Record]:
        """Return the records of some contents that count in statistics, excused ones too."""
        return [
            one
            for (user, content), one in self.records.items()
            if content in content_ids and user in self.learners(self.home[content])
        ]

    def figures(self, content_ids: Iterable[str]) -> dict[str, Any]:
        records = [one for one in self.counting(content_ids) if not one.excused]
        completed = sum(one.completed is not None for one in records)
        return {
            "started": len(records),
            "completed": completed,
            "completionRate": ratio(100 * completed, len(records)),
            "averageTimeSpentSeconds": ratio(sum(one.seconds for one in records), len(records)),
        }

    def average_score(self, content_id: str) -> float | None:
        scores = [one.score for one in self.counting([content_id]) if one.score and not one.excused]
        return ratio(sum(Fraction(floor(10_000 * Fraction(*one)), 100) for one in scores), len(scores))

    def stalled(self, content_id: str) -> int:
        return sum(
            one.latest in DAYS and one.last == content_id and not self.records[user, content_id].excused
            for user, one in self.learners(self.home[content_id]).items()
            if one.status in {"active", "paused"}
        )

    def day(self, module_id: str, day: str) -> dict[str, Any]:
        enrollments = self.learners(module_id).values()
        ids = [one.id for one in self.of_module(module_id)]
        records = [one for one in self.counting(ids) if not one.excused]
        return {
            "date": day,
            "activeLearners": sum(day in one.seconds_of_day for one in enrollments),
            "contentsStarted": sum(one.started == day for one in records),
            "contentsCompleted": sum(one.completed == day for one in records),
            "enrollmentsCompleted": sum(one.completed == day for one in enrollments),
            "timeSpentSeconds": sum(one.seconds_of_day[day] for one in enrollments),
        }


class Reader:
    """A reader of the journal who goes on from where it was, and knows nothing but what it is told."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.place = 0
        self.told = Told()

    def read_on(self) -> None:
        with self.app.app_context(), db.engine.connect() as connection:
            # Changes change their learner in a merge, but not their place.
            changes = connection.execute(select(Change).where(Change.id > self.place).order_by(Change.id)).all()
        for change in changes:
            self.place = change.id
            self.take(change.type, change.user_id, change.module_id, change.content_id, json.loads(change.data))

    def take(self, kind: str, user_id: str, module_id: str, content_id: str, data: dict[str, Any]) -> None:
        told, key, owner = self.told, (user_id, module_id), (user_id, content_id)
        if kind == "enrollment.created":
            assert key not in told.enrollments
            told.enrollments[key] = data["status"], data["counted"]
        elif kind == "enrollment.changed":
            status, counted = told.enrollments[key]
            told.enrollments[key] = data["after"].get("status", status), data["after"].get("counted", counted)
        elif kind == "enrollment.completed":
            status, counted = told.enrollments[key]
            assert status != "completed"
            told.enrollments[key] = "completed", counted
        elif kind == "content.completed":
            assert owner not in told.completed
            told.completed.add(owner)
        elif kind == "content.excused":
            told.excused.add(owner)
        elif kind == "progress.corrected":
            after = data["after"] or {"completedAt": None, "excusedAt": None}
            if not after["completedAt"]:
                told.completed.discard(owner)
            if not after["excusedAt"]:
                told.excused.discard(owner)
        elif kind == "progress.reset":
            status, counted = told.enrollments[key]
            told.enrollments[key] = "active" if status == "completed" else status, counted
            told.forget(user_id, [one["contentId"] for one in data["contents"]])
        elif kind == "enrollment.withdrawn":
            del told.enrollments[key]
            told.forget(user_id, [one["contentId"] for one in data["contents"]])
        elif kind == "learner.erased":
            told.erase(user_id)
        elif kind == "learner.merged":
            told.merge(user_id, data["into"])
        else:
            assert kind == "module.published"


@dataclass
class Told:
    """What a reader of the journal knows: status and `counted` of enrollments, completed and excused contents."""

    enrollments: dict[tuple[str, str], tuple[str, bool]] = field(default_factory=dict)
    completed: set[tuple[str, str]] = field(default_factory=set)
    excused: set[tuple[str, str]] = field(default_factory=set)

    def forget(self, user_id: str, content_ids: Iterable[str]) -> None:
        gone = {(user_id, content_id) for content_id in content_ids}
        self.completed -= gone
        self.excused -= gone

    def erase(self, user_id: str) -> None:
        self.enrollments = {key: one for key, one in self.enrollments.items() if key[0] != user_id}
        self.completed, self.excused = (
            {key for key in of if key[0] != user_id} for of in (self.completed, self.excused)
        )

    def merge(self, user_id: str, into: str) -> None:
        for (user, module_id), first in list(self.enrollments.items()):
            if user == user_id:
                status, counted = self.enrollments.get((into, module_id), first)
                self.enrollments[into, module_id] = "completed" if first[0] == "completed" else status, counted
        for known in (self.completed, self.excused):
            known |= {(into, content_id) for user, content_id in known if user == user_id}
        self.erase(user_id)


learners = st.sampled_from(LEARNERS)
module_ids = st.sampled_from(list(MODULES))
efforts = st.fixed_dictionaries(
    {"seconds": st.sampled_from([0, 1, 7, 100])},
    optional={
        "percentage": st.sampled_from([0, 33, 60, 99, 100, 100]),
        "score": st.sampled_from([(0, 10), (1, 3), (5, 10), (10, 20), (7, 8)]),
        "session": st.sampled_from(["monday", "tuesday"]),
    },
)
corrections = st.fixed_dictionaries(
    {},
    optional={
        "progressPercentage": st.sampled_from([0, 33, 60, 100]),
        "timeSpentSeconds": st.sampled_from([0, 5, 50]),
        "score": st.sampled_from([None, (0, 10), (5, 10), (7, 8)]),
    },
).filter(bool)
content_ids = st.sampled_from([content_id for ids in MODULES.values() for content_id in ids])
updates = st.tuples(learners, content_ids, st.sampled_from(DAYS), efforts)
rules = st.tuples(st.integers(0, 3), st.sampled_from([60, 100, 100]), st.sampled_from([None, None, 50]))


class History(RuleBasedStateMachine):
    """Does to the service and to the model what hypothesis thinks of, and compares them."""

    def __init__(self, app: Flask) -> None:
        super().__init__()
        with app.app_context(), db.engine.begin() as connection:
            for table in reversed(db.metadata.sorted_tables):
                connection.execute(table.delete())
        self.service = Caller(app, "service", "lms")
        self.instructor = Caller(app, "instructor", "ines")
        self.students = {user_id: Caller(app, "student", user_id) for user_id in LEARNERS}
        self.model = Model()
        self.keys = count()
        self.reader = Reader(app)
        self.requests: list[tuple[Caller, tuple[str, str], dict[str, Any], TestResponse]] = []

    def send(self, caller: Caller, method: str, path: str, body: Any) -> TestResponse:
        """Send a request with a key, which can be repeated until a learner whom its answer names is erased."""
        self.model.clock += 1
        options = {"json": body, "headers": {"Idempotency-Key": f"key-{next(self.keys)}"}}
        response = caller.call(method, path, **options)
        if response.status_code < 300:
            self.requests.append((caller, (method, path), options, response))
        return response

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for module_id in MODULES:
            self.publish(module_id, {content_id: data.draw(rules) for content_id in MODULES[module_id]})

    @rule(data=st.data(), module_id=module_ids)
    def republish(self, data: st.DataObject, module_id: str) -> None:
        model = self.model
        free = [one.id for one in model.catalog.values() if model.home[one.id] == module_id or not one.is_current]
        ids = data.draw(st.lists(st.sampled_from(free), unique=True)) if free else []
        self.publish(module_id, {content_id: data.draw(rules) for content_id in ids})

    def publish(self, module_id: str, contents: dict[str, tuple[int, int, int | None]]) -> None:
        published = [Content(content_id, *rule) for content_id, rule in contents.items()]
        given = [
            {
                "id": one.id,
                "title": one.id,
                "type": TYPES[one.id],
                "section": SECTIONS[one.id],
                "weight": one.weight,
                "completionThreshold": one.threshold,
                **({} if one.passing is None else {"passingScore": one.passing}),
            }
            for one in published
        ]
        body = {"title": module_id, "instructorIds": ["ines"], "contents": given}
        response = self.send(self.service, "PUT", f"/api/catalog/modules/{module_id}", body)
        assert response.status_code == (200 if module_id in self.model.order else 201), response.text
        self.model.publish(module_id, published)

    @rule(update=updates, own=st.booleans())
    def update(self, update: tuple[str, str, str, dict[str, Any]], own: bool) -> None:
        user_id, content_id, day, effort = update
        is_new = self.is_new(user_id, content_id)
        body, at = _document(update), day
        if own:  # students tell neither who they are nor when it was
            body, at = {name: body[name] for name in body if name not in {"userId", "occurredAt"}}, ""
        caller = self.students[user_id] if own else self.service
        response = self.send(caller, "POST", "/api/progress", body)
        self.model.update(user_id, content_id, at or self.model.now, **effort)
        assert response.status_code == (201 if is_new else 200), response.text
        self.compare_answer(response, user_id, content_id)

    @rule(batch=st.lists(updates, min_size=1, max_size=5))
    def batch(self, batch: list[tuple[str, str, str, dict[str, Any]]]) -> None:
        started = len({one[:2] for one in batch if self.is_new(*one[:2])})
        completed, enrollments_completed = self.completions()
        body = {"updates": [_document(update) for update in batch]}
        response = self.send(self.service, "POST", "/api/progress/batch", body)
        for user_id, content_id, day, effort in batch:
            self.model.update(user_id, content_id, day, **effort)
        assert response.status_code == 200, response.text
        answer = response.get_json()
        told = Counter(one["contentId"] is not None for one in answer.pop("completions"))
        assert (told[True], told[False]) == (answer["completed"], answer["enrollmentsCompleted"])
        assert answer == {
            "received": len(batch),
            "started": started,
            "completed": self.completions()[0] - completed,
            "enrollmentsCompleted": self.completions()[1] - enrollments_completed,
        }

    def is_new(self, user_id: str, content_id: str) -> bool:
        """Tell whether an update starts the record."""
        record = self.model.records.get((user_id, content_id))
        return record is None or record.started is None

    @rule(user_id=learners, module_id=module_ids, day=st.sampled_from(DAYS))
    def finish(self, user_id: str, module_id: str, day: str) -> None:
        effort = {"seconds": 1, "percentage": 100, "score": (7, 8)}
        if self.model.order[module_id]:
            self.batch([(user_id, content_id, day, effort) for content_id in self.model.order[module_id]])

    def completions(self) -> tuple[int, int]:
        return (
            sum(one.completed is not None for one in self.model.records.values()),
            sum(one.completed is not None for one in self.model.enrollments.values()),
        )

    @rule(data=st.data(), effort=efforts)
    def complete(self, data: st.DataObject, effort: dict[str, Any]) -> None:
        found = self.draw_record(data)
        if not found:
            return
        user_id, content_id, record_id = found
        body = _document((user_id, content_id, DAYS[0], effort))
        body = {name: one for name, one in body.items() if name in {"timeSpentSeconds", "session", "score", "maxScore"}}
        effort = {name: effort[name] for name in effort if name != "percentage"}
        response = self.send(self.students[user_id], "PUT", f"/api/progress/{record_id}/complete", body)
        try:
            self.model.update(user_id, content_id, self.model.now, completes=True, **effort)
        except CriteriaNotMet:
            assert response.status_code == 409
        else:
            self.compare_answer(response, user_id, content_id)

    def draw_record(self, data: st.DataObject) -> tuple[str, str, str] | None:
        """Return some learner and content with the id of the record, but for retired contents, which are in no list."""
        if not self.model.records:
            return None
        user_id, content_id = data.draw(st.sampled_from(sorted(self.model.records)))
        view = self.service.get(f"/api/progress/{user_id}/{self.model.home[content_id]}").get_json()
        ids = [one["progress"]["id"] for one in view["contents"] if one["contentId"] == content_id]
        return (user_id, content_id, ids[0]) if ids else None

    @rule(data=st.data(), given=corrections)
    def correct(self, data: st.DataObject, given: dict[str, Any]) -> None:
        found = self.draw_record(data)
        if not found:
            return
        user_id, content_id, record_id = found
        body = dict(given)
        if "score" in given:
            body["score"], body["maxScore"] = given["score"] or (None, None)
        self.model.clock += 1
        response = self.service.patch(f"/api/progress/{record_id}", json=body)
        self.model.correct(user_id, content_id, body)
        self.compare_answer(response, user_id, content_id)

    @rule(user_id=learners, content_id=content_ids)
    def remove(self, user_id: str, content_id: str) -> None:
        if self.delete(user_id, content_id):
            self.model.remove(user_id, content_id)

    @rule(user_id=learners, content_id=content_ids)
    def withdraw_excuse(self, user_id: str, content_id: str) -> None:
        if self.delete(user_id, content_id, "/excuse"):
            self.model.withdraw_excuse(user_id, content_id)

    def delete(self, user_id: str, content_id: str, of: str = "") -> bool:
        """Delete something of a record; return whether the content was ever published."""
        self.model.clock += 1
        path = f"/api/progress/{user_id}/{self.model.home[content_id]}/{content_id}{of}"
        response = self.service.delete(path)
        assert response.status_code == (204 if content_id in self.model.catalog else 404), response.text
        return content_id in self.model.catalog

    @rule(user_id=learners, content_id=content_ids)
    def excuse(self, user_id: str, content_id: str) -> None:
        path = f"/api/progress/{user_id}/{self.model.home[content_id]}/{content_id}/excuse"
        response = self.send(self.service, "PUT", path, None)
        self.model.excuse(user_id, content_id)
        self.compare_answer(response, user_id, content_id)

    @rule(
        user_id=learners,
        module_id=module_ids,
        status=st.sampled_from([None, "active", "paused", "paused", "dropped", "completed"]),
        counted=st.sampled_from([None, None, True, False]),
        completed=st.sampled_from([None, None, *DAYS]),
    )
    def enroll(
        self, user_id: str, module_id: str, status: str | None, counted: bool | None, completed: str | None
    ) -> None:
        is_new = (user_id, module_id) not in self.model.enrollments
        given = {"status": status, "counted": counted, "completedAt": completed and f"{completed}T12:00:00Z"}
        body = {name: value for name, value in given.items() if value is not None}
        known = self.model.enrollments.get((user_id, module_id))
        response = self.send(self.service, "PUT", f"/api/enrollments/{user_id}/{module_id}", body)
        if completed and "completed" not in {status, known and known.status}:
            assert response.status_code == 422
            return
        self.model.enroll(user_id, module_id, status, counted, completed)
        assert response.status_code == (201 if is_new else 200), response.text
        self.compare(response.get_json(), self.model.enrollment(user_id, module_id))

    @rule(user_id=learners, module_id=module_ids)
    def withdraw(self, user_id: str, module_id: str) -> None:
        assert self.service.delete(f"/api/enrollments/{user_id}/{module_id}").status_code == 204
        self.model.withdraw(user_id, module_id)

    @rule(user_id=learners, module_id=module_ids)
    def reset(self, user_id: str, module_id: str) -> None:
        assert self.service.delete(f"/api/progress/{user_id}/{module_id}").status_code == 204
        self.model.reset(user_id, module_id)

    @rule(user_id=learners)
    def merge(self, user_id: str) -> None:
        into = next(one for one in LEARNERS if one != user_id)
        response = self.send(self.service, "POST", f"/api/progress/{user_id}/merge", {"into": into})
        assert response.status_code == 204, response.text
        self.model.merge(user_id, into)
        self.forget_answers(user_id)

    @rule(user_id=learners)
    def erase(self, user_id: str) -> None:
        assert self.service.delete(f"/api/progress/{user_id}").status_code == 204
        self.model.erase(user_id)
        self.forget_answers(user_id)

    def forget_answers(self, user_id: str) -> None:
        name = f'"{user_id}"'.encode()
        self.requests = [one for one in self.requests if one[0].sub != user_id and name not in one[-1].data]

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        if self.requests:
            caller, request, options, first = data.draw(st.sampled_from(self.requests))
            again = caller.call(*request, **options)
            assert (again.status_code, again.data) == (first.status_code, first.data)
            assert again.headers["Idempotency-Replayed"] == "true"

    @rule(update=updates, batch=st.lists(updates, max_size=3))
    def be_refused(self, update: tuple[str, str, str, dict[str, Any]], batch: list[Any]) -> None:
        fine = [_document(one) for one in batch]
        stranger = self.students[next(one for one in LEARNERS if one != update[0])]
        body = {name: value for name, value in _document(update).items() if name != "occurredAt"}
        unknown = {"updates": [*fine, _document(update) | {"contentId": "nowhere"}]}
        assert stranger.post("/api/progress", json=body).status_code == 403
        assert self.service.post("/api/progress/batch", json=unknown).status_code == 422
        assert self.instructor.delete(f"/api/progress/{update[0]}").status_code == 403

    @invariant()
    def every_outlet_agrees(self) -> None:
        for module_id in self.model.order:
            roster = self.compare_module(module_id)
            for user_id in LEARNERS:
                self.compare_view(user_id, module_id, roster.get(user_id))
        for user_id in LEARNERS:
            self.compare_dashboard(user_id)
        self.reader.read_on()
        assert self.reader.told == self.model.told()

    def compare_answer(self, response: TestResponse, user_id: str, content_id: str) -> None:
        assert response.status_code in {200, 201}, response.text
        self.compare(response.get_json()["progress"], self.model.record(user_id, content_id))
        self.compare(response.get_json()["enrollment"], self.model.enrollment(user_id, self.model.home[content_id]))

    def compare_module(self, module_id: str) -> dict[str, Any]:
        path = f"/api/progress/stats/{module_id}"
        statistics = self.instructor.get(path).get_json()
        self.compare(statistics, self.model.statistics(module_id))
        current = self.model.current(module_id)
        for shown, content in zip(statistics["contents"], current, strict=True):
            self.compare(shown, {"contentId": content.id, "weight": content.weight, **self.model.figures([content.id])})
            assert shown["averageScorePercentage"] == self.model.average_score(content.id)
            assert shown["stalled"] == self.model.stalled(content.id)
            assert shown["excused"] == sum(one.excused is not None for one in self.model.counting([content.id]))
        for group, groups in (("type", TYPES), ("section", SECTIONS)):
            by_group = statistics[f"by{group.title()}"]
            assert [one[group] for one in by_group] == list(dict.fromkeys(groups[one.id] for one in current))
            for shown in by_group:
                ids = [one.id for one in current if groups[one.id] == shown[group]]
                self.compare(shown, {"contents": len(ids), **self.model.figures(ids)})

        days = self.instructor.get(path + "/timeline", query_string={"from": DAYS[0], "to": DAYS[-1]}).get_json()[
            "days"
        ]
        for shown, day in zip(days, DAYS, strict=True):
            self.compare(shown, self.model.day(module_id, day))

        roster = {one["userId"]: one for one in self.instructor.get(path + "/learners").get_json()["items"]}
        assert list(roster) == sorted(user for user, module in self.model.enrollments if module == module_id)
        return roster

    def compare_view(self, user_id: str, module_id: str, in_roster: dict[str, Any] | None) -> None:
        view = self.instructor.get(f"/api/progress/{user_id}/{module_id}").get_json()
        listed = in_roster and {name: in_roster[name] for name in in_roster if name not in ("counted", "lastContentId")}
        assert view["enrollment"] == listed
        enrollment = self.model.enrollments.get((user_id, module_id))
        assert in_roster is None or enrollment is None or in_roster["counted"] is enrollment.is_counted
        self.compare(view["enrollment"], self.model.enrollment(user_id, module_id))
        current = self.model.current(module_id)
        for shown, content in zip(view["contents"], current, strict=True):
            self.compare(shown, self.model.explained(user_id, content))
            assert (shown["missing"] == []) == (shown["status"] in {"completed", "excused"})
            self.compare(shown["progress"], self.model.record(user_id, content.id))
            assert shown["status"] == (shown["progress"] or {"status": "not_started"})["status"]
        for group in ("type", "section"):
            by_group = view[f"by{group.title()}"]
            assert [one[group] for one in by_group] == list(dict.fromkeys(one[group] for one in view["contents"]))
            for shown in by_group:
                ours = [one for one in view["contents"] if one[group] == shown[group]]
                counted = [one for one in ours if one["weight"]]
                assert shown["totalContents"] == len(counted)
                assert shown["completedContents"] == sum(one["status"] in {"completed", "excused"} for one in counted)
                assert shown["timeSpentSeconds"] == sum(
                    one["progress"]["timeSpentSeconds"] for one in ours if one["progress"]
                )

    def compare_dashboard(self, user_id: str) -> None:
        dashboard = self.students[user_id].get("/api/progress/me").get_json()
        self.compare(dashboard["summary"], self.model.summary(user_id))
        modules = {one["moduleId"]: one for one in dashboard["modules"]}
        assert modules.keys() == {module for user, module in self.model.enrollments if user == user_id}
        for module_id, shown in modules.items():
            self.compare(shown, self.model.enrollment(user_id, module_id))
        following = self.model.following(user_id)
        assert (dashboard["continue"] is None) == (not following)
        assert dashboard["continue"] is None or dashboard["continue"]["contentId"] in following

    def compare(self, shown: dict[str, Any] | None, expected: dict[str, Any] | None) -> None:
        assert (shown is None) == (expected is None)
        if shown and expected:
            assert {name: shown[name] for name in expected} == expected


def _document(update: tuple[str, str, str, dict[str, Any]]) -> dict[str, Any]:
    user_id, content_id, day, effort = update
    return {
        "userId": user_id,
        "contentId": content_id,
        "occurredAt": f"{day}T12:00:00Z",
        "timeSpentSeconds": effort["seconds"],
        **({"progressPercentage": effort["percentage"]} if "percentage" in effort else {}),
        **({"score": effort["score"][0], "maxScore": effort["score"][1]} if "score" in effort else {}),
        **({"session": effort["session"]} if "session" in effort else {}),
    }


@pytest.mark.no_cover
def test_whatever_happens_every_outlet_says_what_the_contract_says(app: Flask) -> None:
    class Here(History):
        def __init__(self) -> None:
            super().__init__(app)

    run_state_machine_as_test(Here, settings=FEW)
