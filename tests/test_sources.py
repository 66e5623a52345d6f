"""How files to import are read, without a database."""

import tracemalloc

import pytest

from progress_service import cli, importing
from tests.test_importing import HEADER, OBJECTS, TABLE, array, piped


@pytest.mark.slow
@pytest.mark.no_cover  # which would take several times as long while memory is traced
@pytest.mark.parametrize("between", ["\n", ",", "[]"])
def test_memory_does_not_grow_with_the_file(between: str) -> None:
    objects = "\n".join(OBJECTS * 5000) if between == "\n" else array(OBJECTS * 5000, ",").decode()
    content = ("\n".join([HEADER, *TABLE[1:] * 5000]) if between == "," else objects).encode() + b"\n"
    with piped(content) as pipe, open(pipe, "rb") as file:
        source = importing.Source(file, cli.UPDATES)
        tracemalloc.start()
        read = sum(1 for _ in source.lines())
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert read == 30_000
    assert most < len(content) / 2
