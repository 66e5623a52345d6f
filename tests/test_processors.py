"""How many processors a process may use: its affinity, and the quotas of cgroups of both versions."""

import os
from pathlib import Path

import pytest

from progress_service import processors


@pytest.fixture(autouse=True)
def _many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the affinity be of 8 processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def quota(root: Path, group: str, quota: int | str, period: int = 100_000, version: int = 2) -> None:
    """Write the files of a cgroup."""
    folder = root / "sys/fs/cgroup" / ("" if version == 2 else "cpu") / group
    folder.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (folder / "cpu.max").write_text(f"{quota} {period}\n")
    else:
        (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (folder / "cpu.cfs_period_us").write_text(f"{period}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory of a process in cgroups of version 1 and 2 that have no limit."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:cpuacct,cpu:/docker/1\n2:cpuset:/narrow\n0::/kube/pod:1\n")
    quota(tmp_path, "kube/pod:1", "max")
    quota(tmp_path, "docker/1", -1, version=1)
    return tmp_path


def test_without_a_quota_the_affinity_counts(root: Path, tmp_path: Path) -> None:
    assert processors.usable(root) == 8
    assert processors.usable(tmp_path / "without-cgroups") == 8


@pytest.mark.parametrize(
    ("group", "version"), [("kube/pod:1", 2), ("kube", 2), ("", 2), ("docker/1", 1), ("docker", 1), ("", 1)]
)
@pytest.mark.parametrize(
    ("given", "period", "usable"),
    [(200_000, 100_000, 2), (150_000, 100_000, 2), (10_000, 100_000, 1), (5_000, 1_000, 5), (10**7, 100_000, 8)],
)
def test_a_quota_counts_wherever_the_cgroup_or_one_above_has_it(
    group: str, version: int, given: int, period: int, usable: int, root: Path
) -> None:
    quota(root, group, given, period, version)
    assert processors.usable(root) == usable


def test_a_quota_of_another_cgroup_does_not_count(root: Path) -> None:
    quota(root, "kube/other", 100_000)
    quota(root, "docker/other", 100_000, version=1)
    quota(root, "narrow", 100_000, version=1)
    assert processors.usable(root) == 8


def test_the_least_of_several_quotas_counts(root: Path) -> None:
    quota(root, "kube", 300_000)
    quota(root, "kube/pod:1", 400_000)
    quota(root, "docker", 500_000, version=1)
    assert processors.usable(root) == 3


def test_this_machine_has_some() -> None:
    assert 1 <= processors.usable() <= 8
