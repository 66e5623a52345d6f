"""The learners and modules that the speed is measured with, and the requests that are sent about them."""

import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import NullPool, create_engine, func, select

from bench.serving import bearer, run_command
from progress_service.store.models import ProgressRecord

LEARNERS, MODULES, CONTENTS = 2000, 20, 40
"""Every learner is enrolled in every module; each module has this number of contents."""
STUDENTS, STARTED = 250, 2
"""The learners who send requests, and the contents that they have started in each module: ten thousand records."""
VIEWERS = 50
"""The number of these learners who have started all contents of the first module."""
GROUP = 25
"""The number of students in a batch; batches that are sent side by side are about different students."""
IMPORTED_BATCHES = 40
MOST_PER_SECOND = 2000
"""More updates than any service answers in a second."""

INSTRUCTOR = "ines"
UPDATE = {"progressPercentage": 40, "timeSpentSeconds": 5}


def student(number: object) -> str:
    return f"student-{number}"


def module(number: object) -> str:
    return f"module-{number}"


def content(module_number: object, number: object) -> str:
    return f"{module(module_number)}-content-{number}"


TOKENS = {number: bearer(student(number), "student") for number in range(1, STUDENTS + 1)}
PLATFORM, TEACHER = bearer("platform", "service"), bearer(INSTRUCTOR, "instructor")


def request(method: str, path: str, authorization: str, body: Any = None) -> bytes:
    """Return a request as it is sent."""
    sent = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Authorization: {authorization}"]
    if sent:
        lines += ["Content-Type: application/json", f"Content-Length: {len(sent)}"]
    return "\r\n".join([*lines, "", ""]).encode() + sent


def reads(path: str, tokens: Sequence[str]) -> list[bytes]:
    return [request("GET", path, token) for token in tokens]


class School:
    """The learners and modules in a database; no request is drawn twice that can succeed only once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._chance = random.Random(1)
        self._fresh = self._not_started()
        self._starts: list[bytes] = []

    def fill(self) -> None:
        """Publish the modules, enroll the learners and let the students begin, by the service's own commands."""
        contents = [
            [
                {"id": content(nth, ordinal), "title": f"Lesson {ordinal}", "type": ("video", "quiz")[ordinal % 2]}
                for ordinal in range(CONTENTS)
            ]
            for nth in range(MODULES)
        ]
        modules = [
            {"id": module(nth), "title": f"Module {nth}", "instructorIds": [INSTRUCTOR], "contents": contents[nth]}
            for nth in range(MODULES)
        ]
        self._run([{"modules": modules}], "catalog", "load")
        self._run(
            [{"userId": student(n), "moduleId": module(nth)} for n in range(1, LEARNERS + 1) for nth in range(MODULES)],
            "progress",
            "import",
            "--enrollments",
        )
        self._start(
            (number, content(nth, ordinal))
            for number in TOKENS
            for nth in range(MODULES)
            for ordinal in range(CONTENTS if nth == 0 and number <= VIEWERS else STARTED)
        )
        self.analyze()

    def analyze(self) -> None:
        """Let the database learn how its rows are spread."""
        with self._engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE")

    def starts(self, seconds: float) -> list[bytes]:
        """Return updates that each start a record, more than are answered in this time; the sender deletes them."""
        while len(self._starts) < seconds * MOST_PER_SECOND:
            number, content_id = next(self._fresh)
            self._starts.append(request("POST", "/api/progress", TOKENS[number], {"contentId": content_id, **UPDATE}))
        return self._starts

    def repeats(self) -> list[bytes]:
        """Return updates of records that exist."""
        draw = self._chance.randrange
        drawn = [(1 + draw(STUDENTS), content(draw(MODULES), draw(STARTED))) for _ in range(MOST_PER_SECOND)]
        return [request("POST", "/api/progress", TOKENS[n], {"contentId": name, **UPDATE}) for n, name in drawn]

    def completes(self, seconds: float) -> list[bytes]:
        """Return requests that each complete a record, more than are answered in this time; start missing records."""
        wanted = round(seconds * MOST_PER_SECOND)
        tokens = {student(number): token for number, token in TOKENS.items()}
        kept = [content(nth, ordinal) for nth in range(MODULES) for ordinal in range(STARTED)]
        found = (
            select(ProgressRecord.id, ProgressRecord.user_id)
            .where(ProgressRecord.user_id.in_(tokens), ProgressRecord.completed_at.is_(None))
            .where(ProgressRecord.module_id != module(0), ProgressRecord.content_id.not_in(kept))
            .order_by(func.random())
            .limit(wanted)
        )
        records = self._all(found)
        if len(records) < wanted:
            self._start(next(self._fresh) for _ in range(wanted - len(records)))
            records = self._all(found)
        return [request("PUT", f"/api/progress/{key}/complete", tokens[user_id]) for key, user_id in records]

    def batches(self, size: int) -> list[bytes]:
        """Return batches of this size, of updates of records that exist, by groups of students in turn."""
        groups = [group for _ in range(3) for group in range(STUDENTS // GROUP)]
        return [
            request("POST", "/api/progress/batch", PLATFORM, {"updates": self._updates(group, size)})
            for group in groups
        ]

    def import_updates(self) -> dict[str, float]:
        """Import the updates of some batches, and an empty array, which shows how long the command takes to start."""
        groups = [nth % (STUDENTS // GROUP) for nth in range(IMPORTED_BATCHES)]
        updates = [update for group in groups for update in self._updates(group, GROUP * MODULES)]
        start = self._run([], "progress", "import", "--updates")
        seconds = self._run(updates, "progress", "import", "--updates")
        return {"updatesPerSecond": len(updates) / (seconds - start), "startSeconds": start}

    def _updates(self, group: int, size: int) -> list[dict[str, Any]]:
        """Draw updates of a group's records, each in another enrollment."""
        students = range(1 + group * GROUP, 1 + (group + 1) * GROUP)
        modules = self._chance.sample(range(MODULES), size // GROUP)
        return [
            {"userId": student(number), "contentId": content(nth, self._chance.randrange(STARTED)), **UPDATE}
            for nth in modules
            for number in students
        ]

    def _not_started(self) -> Iterator[tuple[int, str]]:
        contents = [content(nth, ordinal) for nth in range(1, MODULES) for ordinal in range(STARTED, CONTENTS)]
        places = range(STUDENTS * len(contents))
        for place in self._chance.sample(places, len(places)):
            yield 1 + place % STUDENTS, contents[place // STUDENTS]

    def _start(self, pairs: Iterator[tuple[int, str]]) -> None:
        updates = [{"userId": student(number), "contentId": content_id, **UPDATE} for number, content_id in pairs]
        self._run(updates, "progress", "import", "--updates")

    def _run(self, lines: Sequence[Mapping[str, Any]], *command: str) -> float:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.writelines([json.dumps(line) + "\n" for line in lines] or "[]")
            file.flush()
            return run_command(self.url, *command, file.name)

    def _all(self, found: Any) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return connection.execute(found).all()
