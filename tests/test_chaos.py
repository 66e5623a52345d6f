"""The short form of `python -m tests.chaos`."""

import pytest

from tests.chaos import unleash


@pytest.mark.slow
def test_what_was_acknowledged_is_there_exactly_once_whatever_is_killed() -> None:
    report = unleash(seconds=3, seed=1)

    assert report.faults == []
    assert report.kills > 0
    assert report.crashes == len(report.recoveries) > 0
    assert report.acknowledged > 0
    assert report.answers[503] + report.broken > 0
