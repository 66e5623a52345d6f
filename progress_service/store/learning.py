"""The values stored about learners, before and after a change: between the tables and the rules."""

from collections.abc import Collection, Iterator, Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

from progress_service import tallies
from progress_service.calculations import ActivityDay, Denominators, Enrollment, Record, Session, Update


class RecordKey(NamedTuple):
    user_id: str
    content_id: str


class EnrollmentKey(NamedTuple):
    user_id: str
    module_id: str


class DayKey(NamedTuple):
    user_id: str
    module_id: str
    day: date


class SessionKey(NamedTuple):
    user_id: str
    content_id: str
    session: str


class EnrollmentChange(NamedTuple):
    """A change of an enrollment, which is made if it is missing; a field that is None stays as it is."""

    user_id: str
    module_id: str
    status: str | None = None
    enrolled_at: datetime | None = None
    counted: bool | None = None
    completed_at: datetime | None = None
    """When the module was completed elsewhere: gives the completion, whatever the records say."""
    told_at: datetime | None = None
    """As of when an imported line tells this. Of what lines tell, the latest counts; a request counts at once."""

    @property
    def given(self) -> dict[str, Any]:
        """The fields that are changed, by name."""
        return dict(zip(self._fields[2:6], self[2:6], strict=True))


class Learning(NamedTuple):
    """The stored values of some learners: their enrollments, records, days of activity and sessions."""

    enrollments: dict[EnrollmentKey, Enrollment]
    records: dict[RecordKey, Record]
    days: dict[DayKey, ActivityDay]
    sessions: dict[SessionKey, Session]

    @classmethod
    def nothing(cls) -> "Learning":
        return cls({}, {}, {}, {})

    def copy(self) -> "Learning":
        return Learning(dict(self.enrollments), dict(self.records), dict(self.days), dict(self.sessions))

    def without_enrollments(self, created: Collection[EnrollmentKey]) -> "Learning":
        """Leave out the enrollments that this transaction has made: they are in no tally yet."""
        return self._replace(
            enrollments={key: enrollment for key, enrollment in self.enrollments.items() if key not in created}
        )

    def under_enrollments(self) -> "Learning":
        """Leave out what is under enrollments that are not among these."""
        records = {key: one for key, one in self.records.items() if (one.user_id, one.module_id) in self.enrollments}
        days = {key: one for key, one in self.days.items() if key[:2] in self.enrollments}
        sessions = {key: one for key, one in self.sessions.items() if key[:2] in records}
        return Learning(self.enrollments, records, days, sessions)

    def difference(self, other: "Learning") -> "Learning":
        """Return the values that differ from the other's, and all of learners who count in only one of the two."""
        toggled = {
            key
            for key, enrollment in self.enrollments.items()
            if key in other.enrollments and other.enrollments[key].counted != enrollment.counted
        }
        return Learning(
            _difference(self.enrollments, other.enrollments, toggled),
            _difference(self.records, other.records, toggled),
            _difference(self.days, other.days, toggled),
            _difference(self.sessions, other.sessions, ()),
        )

    def without(self, other: "Learning") -> "Learning":
        """Return the values whose keys the other does not have."""
        pairs: Iterator[tuple[dict[Any, Any], dict[Any, Any]]] = zip(self, other, strict=True)
        return Learning(*({key: value for key, value in mine.items() if key not in others} for mine, others in pairs))

    def shares(
        self, modules: Mapping[str, Denominators], enrollments: Mapping[EnrollmentKey, Enrollment]
    ) -> Iterator[tallies.Share]:
        """Yield the shares of these values in the tallies; learners who do not count have none."""
        for enrollment in self.enrollments.values():
            if enrollment.counted:
                yield from tallies.of_enrollment(enrollment, modules[enrollment.module_id])
        for record in self.records.values():
            if enrollments[EnrollmentKey(record.user_id, record.module_id)].counted:
                yield from tallies.of_record(record)
        for day in self.days.values():
            if enrollments[EnrollmentKey(day.user_id, day.module_id)].counted:
                yield from tallies.of_day(day)


class Step(NamedTuple):
    """The effect of one update: the record before it, and the record and the enrollment after it."""

    update: Update
    before: Record | None
    record: Record
    enrollment: Enrollment

    @property
    def enrollment_key(self) -> EnrollmentKey:
        return EnrollmentKey(self.enrollment.user_id, self.enrollment.module_id)

    @property
    def moves_completion(self) -> bool:
        """Whether the update gives a completed record another date."""
        return self.before is not None and self.before.done_at not in (None, self.record.done_at)

    @property
    def starts(self) -> bool:
        """Whether the update is the first about this record."""
        return self.before is None or self.before.started_at is None


class Recorded(NamedTuple):
    """The effect of updates or of enrollment changes, the denominators of the modules, and each update's effect."""

    before: Learning
    after: Learning
    modules: dict[str, Denominators]
    steps: list[Step]

    @property
    def started(self) -> int:
        """How many records are new."""
        return sum(step.starts for step in self.steps)

    @property
    def enrolled(self) -> int:
        """How many enrollments are new."""
        return len(self.after.enrollments) - len(self.before.enrollments)


def _difference(some: dict[Any, Any], others: dict[Any, Any], toggled: Collection[EnrollmentKey]) -> dict[Any, Any]:
    return {
        key: value
        for key, value in some.items()
        if others.get(key) != value or (toggled and (value.user_id, value.module_id) in toggled)
    }
