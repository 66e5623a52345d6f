"""The figures of a run beside the targets, or beside the figures of another run.

python -m bench.report BASE NEW
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

CEILING, GROUP, FLOOR, IMPORT, START = "ceiling-{}", "group-{}", "pgbench", "import", "start"
YARDSTICKS = {
    "post-repeated": ("ceiling-post", FLOOR),
    "post-new": ("ceiling-post", FLOOR),
    "complete": ("ceiling-post",),
    "batch-100": (FLOOR,),
    "batch-500": (FLOOR,),
    "dashboard": ("ceiling-dashboard",),
    "module": ("ceiling-module",),
    "statistics": ("ceiling-statistics",),
}
"""The figures with which each kind of request is compared."""

METRICS = {
    "perSecond": ("per s", 1.0),
    "p50": ("p50 ms", 1000.0),
    "p99": ("p99 ms", 1000.0),
    "serviceCpu": ("CPU ms, service", 1000.0),
    "databaseCpu": ("CPU ms, database", 1000.0),
    "loadCpu": ("CPU ms, load", 1000.0),
    "walBytes": ("WAL kB", 0.001),
    "updatesPerSecond": ("updates per s", 1.0),
    "startSeconds": ("start ms", 1000.0),
    "seconds": ("ms", 1000.0),
}
"""The label of each metric, and the factor to its unit."""

CLIENTS, MANY_CLIENTS = 8, 32
"""The numbers of clients in the targets."""


class Spread(NamedTuple):
    """The median and the range of the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> "Spread":
        return cls(median(rounds), min(rounds), max(rounds))

    def __str__(self) -> str:
        return f"{_number(self.median)} ({_number(self.least)}-{_number(self.most)})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class Figures:
    """The rounds of a run's figures, by subject, place and number of clients."""

    def __init__(self, run: Mapping[str, Any]) -> None:
        self.rounds: dict[tuple[str, str, int], list[dict[str, float]]] = {
            (figure["what"], figure["where"], figure["clients"]): figure["rounds"] for figure in run["figures"]
        }

    def of(self, what: str, where: str, clients: int, metric: str = "perSecond") -> list[float]:
        """Return each round's value; nothing if it was not measured."""
        return [values[metric] for values in self.rounds.get((what, where, clients), ())]

    def spreads(self) -> Iterator[tuple[tuple[str, str, int], str, Spread]]:
        for key, rounds in self.rounds.items():
            for metric in METRICS:
                if metric in rounds[0]:
                    yield key, metric, Spread.of([METRICS[metric][1] * values[metric] for values in rounds])


class Target(NamedTuple):
    """A ratio of two figures that must be reached or, with `is_most`, must not be exceeded."""

    what: str
    reached: list[float]
    wanted: float
    is_most: bool = False

    def __str__(self) -> str:
        spread = Spread.of(self.reached)
        is_met = spread.median <= self.wanted if self.is_most else spread.median >= self.wanted
        sign = "at most" if self.is_most else "at least"
        return f"{self.what:60}{spread!s:>18}  {sign} {self.wanted:g}{'' if is_met else '  MISSED'}"


def targets(run: Mapping[str, Any]) -> list[Target]:
    """Return the targets whose figures were measured; ratios are the medians of the rounds' ratios."""
    figures = Figures(run)

    def ratio(
        what: str,
        against: str,
        wanted: float,
        *,
        clients: int = CLIENTS,
        metric: str = "perSecond",
        updates: int = 1,
        is_most: bool = False,
    ) -> Target:
        name = METRICS["updatesPerSecond" if updates > 1 else metric][0]
        measured, yardstick = (
            figures.of(name, where, clients, metric) for name, where in ((what, "postgresql"), (against, ""))
        )
        reached = [updates * value / other for value, other in zip(measured, yardstick, strict=False)]
        return Target(f"{what}, {name}, of {against}, {clients} clients", reached, wanted, is_most)

    imported = figures.of(IMPORT, "postgresql", 0, "updatesPerSecond")
    p50, p99, database = (
        figures.of("post-repeated", "postgresql", MANY_CLIENTS, metric) for metric in ("p50", "p99", "databaseCpu")
    )
    found = [
        *(
            target
            for what in ("post-repeated", "post-new")
            for clients, rate, cpu in ((CLIENTS, 0.35, 2.0), (MANY_CLIENTS, 0.50, 1.5))
            for target in (
                ratio(what, "ceiling-post", rate, clients=clients),
                ratio(what, "ceiling-post", cpu, clients=clients, metric="serviceCpu", is_most=True),
            )
        ),
        Target(
            f"post-repeated, CPU ms, database, {MANY_CLIENTS} clients",
            [1000 * used for used in database],
            0.25,
            is_most=True,
        ),
        Target(
            f"post-repeated, p99 of p50, {MANY_CLIENTS} clients",
            [late / usual for late, usual in zip(p99, p50, strict=True)],
            2.0,
            is_most=True,
        ),
        ratio("batch-500", FLOOR, 4.0, updates=500),
        *(
            Target(
                f"import, updates per s, of batch-500, {clients} clients",
                [value / (500 * batch) for value, batch in zip(imported, batches, strict=False)],
                1.0,
            )
            for clients in (1, CLIENTS)
            for batches in [figures.of("batch-500", "postgresql", clients)]
        ),
        ratio("dashboard", "ceiling-dashboard", 0.45),
        ratio("module", "ceiling-module", 0.45),
        ratio("statistics", "ceiling-statistics", 0.35),
        *(
            Target(
                f"memory of a worker ({where}), MB, PSS",
                [max(worker["pss"] for worker in workers)],
                100.0,
                is_most=True,
            )
            for where, workers in run["workers"].items()
        ),
        Target("import of wsgi, s", figures.of(START, "", 0, "seconds"), 0.7, is_most=True),
    ]
    return [target for target in found if target.reached]


def table(run: Mapping[str, Any]) -> str:
    """Write the figures side by side, and the targets below them."""
    figures = Figures(run)
    columns = ("perSecond", "p50", "p99", "serviceCpu", "databaseCpu", "loadCpu", "walBytes")
    by_key: dict[tuple[str, str, int], dict[str, Spread]] = {}
    for key, metric, spread in figures.spreads():
        by_key.setdefault(key, {})[metric] = spread
    lines = [_row("median (least-most of rounds)", "", "clients", *(METRICS[name][0] for name in columns))]
    order = list(dict.fromkeys(what for what, *_ in by_key))
    for (what, where, clients), spreads in sorted(by_key.items(), key=lambda item: (order.index(item[0][0]), *item[0])):
        if "perSecond" in spreads:
            lines.append(_row(what, where, str(clients), *(str(spreads.get(name, "")) for name in columns)))
        else:
            others = ", ".join(f"{METRICS[name][0]} {spread}" for name, spread in spreads.items())
            lines.append(f"{what:20}{where:12}{others}")
    for where, workers in run["workers"].items():
        sizes = ", ".join(f"RSS {worker['rss']:.1f} MB, PSS {worker['pss']:.1f} MB" for worker in workers)
        lines.append(f"{'workers':20}{where:12}{sizes}")
    return "\n".join([*lines, "", *map(str, targets(run))])


def _row(what: str, where: str, clients: str, *cells: str) -> str:
    return f"{what:20}{where:12}{clients:>3}" + "".join(f"{cell:>18}" for cell in cells)


def compare(base: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Write the medians of two runs side by side, and mark the figures whose rounds do not overlap."""
    before = {(key, metric): spread for key, metric, spread in Figures(base).spreads()}
    lines = [
        f"{name}: {run['machine']['commit']}, {run['machine']['measuredAt']}, {run['options']['records']} more records"
        for name, run in (("base", base), ("new", new))
    ]
    lines += ["", f"{'median (least-most of rounds)':52}{'base':>18}{'new':>18}   ratio"]
    slower: list[tuple[float, str]] = []
    for key, metric, spread in Figures(new).spreads():
        old = before.get((key, metric))
        if old is None or not old.median:
            continue
        name = " ".join(str(part) for part in key if part)
        ratio = spread.median / old.median
        mark = "" if old.least <= spread.most and spread.least <= old.most else "  *"
        lines.append(f"{name:34}{METRICS[metric][0]:18}{old!s:>18}{spread!s:>18}{ratio:8.2f}{mark}")
        if metric in ("perSecond", "updatesPerSecond"):
            slower.append((1 / ratio, name))
    lines += ["", "* all rounds of one run are above all rounds of the other"]
    if slower:
        lines.append("slowed down most: {1}, x {0:.2f}".format(*max(slower)))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="Compare the figures of two runs.")
    parser.add_argument("base", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    print(compare(*(json.loads(path.read_text()) for path in (options.base, options.new))))


if __name__ == "__main__":
    main()
