"""How many processors this process may use; in a container they may be fewer than those of the machine."""

import math
import os
from pathlib import Path


def usable(root: Path = Path("/")) -> int:
    """Return the number of processors within the affinity and the quotas of the cgroups, rounded up."""
    shares = [float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)]
    cgroups = root / "proc/self/cgroup"
    for line in cgroups.read_text().splitlines() if cgroups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            mounted = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            own = Path(path.strip("/"))  # which a container often sees at the top
            shares += [share for group in (own, *own.parents) for share in _quota(mounted / group)]
    return math.ceil(min(shares))


def _quota(cgroup: Path) -> list[float]:
    """Return how many processors a cgroup may use; nothing if it has no limit, or cannot be seen."""
    try:
        if (version_2 := cgroup / "cpu.max").exists():
            quota, period = version_2.read_text().split()
        else:
            quota, period = ((cgroup / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return [int(quota) / int(period)] if int(quota) > 0 else []
    except (OSError, ValueError):  # such as "max"
        return []
