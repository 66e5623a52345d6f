"""The lock file and the ranges in setup.cfg agree, so that what is installed from it is what was meant."""

import re
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.txt").read_text()


def needed() -> Iterator[Requirement]:
    """Yield what setup.cfg asks for, and what that asks for in turn, by the metadata of what is installed."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    waiting = [Requirement(line) for line in setup["options"]["install_requires"].strip().splitlines()]
    seen = set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) not in seen:
            seen.add(str(requirement))
            yield requirement
            for extra in {"", *requirement.extras}:
                further = map(Requirement, requires(requirement.name) or [])
                waiting += [one for one in further if not one.marker or one.marker.evaluate({"extra": extra})]


def test_the_lock_meets_every_requirement() -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", LOCK, re.M))

    wrong = [
        str(requirement)
        for requirement in needed()
        if not (version := locked.get(canonicalize_name(requirement.name))) or version not in requirement.specifier
    ]
    assert wrong == [], "`make lock` brings requirements.txt up to date"


def test_what_is_locked_is_known_by_its_hashes_and_comes_from_no_certain_place() -> None:
    pins = LOCK.replace("\\\n", " ").splitlines()

    assert [pin for pin in pins if not pin.strip().startswith("#") and "--hash=sha256:" not in pin] == []
    assert not re.search(r"://|index-url|find-links|file:| @ |(^|\s)[./]+/|-e ", LOCK)
