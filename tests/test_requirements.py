"""What is installed is what was meant: all files of the package, and what the lock file has within the ranges."""

import re
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.txt").read_text()
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def needed() -> Iterator[Requirement]:
    """Yield what setup.cfg asks for, and what that asks for in turn, by the metadata of what is installed."""
    waiting = [Requirement(line) for line in SETUP["options"]["install_requires"].strip().splitlines()]
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


def test_every_file_of_the_package_is_installed() -> None:
    folders = [ROOT.joinpath(*name.split(".")) for name in SETUP["options"]["packages"].split()]
    patterns = ["*.py", *SETUP["options.package_data"]["*"].split(", ")]

    installed = {path for folder in folders for pattern in patterns for path in folder.glob(pattern)}
    files = {path for path in (ROOT / "progress_service").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert files - installed == set()
