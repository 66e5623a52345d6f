"""The figures of gunicorn's workers, which each of them keeps in files, and what all of its processes use together."""

import fcntl
import os
import resource
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from flask import current_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the directory of these files, which the library reads."""
PREFIX = "progress-workers-"
"""The prefix of the names of these directories. The process that uses a directory locks it until it ends."""
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


class Workers(Collector):
    """The figures of all workers with readable files; workers that were killed or just begin may have none."""

    def collect(self) -> Iterable[Metric]:
        files = map(str, Path(os.environ[DIRECTORY]).glob("*.db"))
        merged: Iterable[Metric] = MultiProcessCollector.merge(  # type: ignore[no-untyped-call]
            [file for file in files if _is_readable(file)]
        )
        return merged


def _is_readable(file: str) -> bool:
    """Tell whether a file holds only figures; with other content the library would fail, or read for ever."""
    end = 0
    try:
        if not os.path.getsize(file):
            return False
        for *_, place in MmapedDict.read_all_values_from_file(file):  # type: ignore[no-untyped-call]
            if place <= end:
                raise ValueError("an entry does not end behind the last")
            end = place
        MultiProcessCollector.merge([file])  # type: ignore[no-untyped-call]
    except Exception as error:  # any error that meaningless bytes lead to
        current_app.logger.warning("figures of a worker cannot be read: %s", type(error).__name__)
        return False
    return True


def alive() -> int:
    """Return how many workers there are; this process is one if it is alone."""
    return len(list(Path(os.environ[DIRECTORY]).glob("gauge_livesum_*.db"))) if DIRECTORY in os.environ else 1


class Processes(Collector):
    """What gunicorn and its workers use together; nothing where the system does not tell."""

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("progress_workers", "Processes that answer requests.", value=alive())
        ticks, pages, opened = 0, 0, 0
        for pid in _pids():
            with suppress(OSError):  # it has ended, or the system does not tell
                # The time of workers that have ended is their parent's.
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks, pages = ticks + sum(map(int, stat[11:15])), pages + int(stat[21])
                opened = max(opened, len(os.listdir(f"/proc/{pid}/fd")))
        if ticks:
            yield CounterMetricFamily("process_cpu_seconds", "CPU time of all processes.", value=ticks / _TICKS)
            yield GaugeMetricFamily("process_resident_memory_bytes", "Memory of all processes.", value=pages * _PAGE)
            yield GaugeMetricFamily("process_open_fds", "Open files of the process with the most.", value=opened)
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            yield GaugeMetricFamily("process_max_fds", "Files that a process may open.", value=limit)


def _pids() -> list[int]:
    """Return the ids of gunicorn's first process and of its workers, or that of this process if it is alone."""
    if DIRECTORY not in os.environ:
        return [os.getpid()]
    first = os.getppid()
    children = Path(f"/proc/{first}/task/{first}/children")
    return [first, *map(int, children.read_text().split() if children.exists() else ())]


def forget(number: int) -> None:
    """Remove what a worker that has ended was doing; what it has done stays counted."""
    with suppress(FileNotFoundError):  # somebody has cleaned up
        mark_process_dead(number)  # type: ignore[no-untyped-call]


def begin(parent: str | None, user: int, group: int) -> None:
    """Make a directory that the workers of this process, which run as a user and a group, share for their figures."""
    _remove_abandoned(Path(parent or tempfile.gettempdir()))
    # The directory is locked before it gets its name: unlocked, it would be removed as abandoned.
    made = Path(tempfile.mkdtemp(dir=parent))
    os.chown(made, user, group)
    with suppress(OSError):  # a file system without locks, where no directory is removed either
        _lock(made)
    os.environ[DIRECTORY] = str(made.rename(made.with_name(f"{PREFIX}{os.getpid()}-{made.name}")))


def end() -> None:
    """Remove the files of the workers."""
    shutil.rmtree(os.environ.pop(DIRECTORY))


def _remove_abandoned(parent: Path) -> None:
    """Remove the directories of processes that were killed."""
    for directory in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is in use, or belongs to another user
            lock = _lock(directory)
            try:
                shutil.rmtree(directory)
            finally:
                os.close(lock)


def _lock(directory: Path) -> int:
    """Lock a directory until this process and its children end. Raises OSError if another process holds the lock."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        raise
    return opened
