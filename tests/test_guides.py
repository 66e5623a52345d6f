"""What the guides show happens so: their files, scripts and commands are run, and the answers are as they say."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.callers import KEY, Caller

ROOT = Path(__file__).parents[1]
SECTIONS = {
    f"{path.stem}: {title}": text.split("\n## ")[0] + section
    for path in sorted((ROOT / "docs" / "guides").glob("*.md"))
    for text in [path.read_text()]
    for title, section in re.findall(r"^## (.+)\n((?:.*\n(?!## ))*)", text, re.M)
}
"""The sections of each guide, after what the guide says to all of them."""
BLOCK = re.compile(r"(.*)\n\n?```(\w+)\n((?:.*\n)*?)```\n")
FILE, ANSWER = re.compile(r"\*\*([\w.]+)\*\*"), re.compile(r"`GET (\S+)`")


def holds(document: Any, shown: Any) -> bool:
    """Tell whether a document has everything that is shown of it."""
    if isinstance(shown, dict):
        return isinstance(document, dict) and all(holds(document.get(name), value) for name, value in shown.items())
    if isinstance(shown, list):
        return isinstance(document, list) and len(document) == len(shown) and all(map(holds, document, shown))
    return bool(document == shown)


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_guide_leads_where_it_says(section: str, app: Flask, database_url: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PROGRESS_SQLALCHEMY_DATABASE_URI": database_url,
        "PROGRESS_JWT_SECRET_KEY": KEY,
    }
    done: Counter[str] = Counter()
    for introduction, language, content in BLOCK.findall(section):
        if language == "sh":
            command = ["sh", "-e", "-c", content]
            ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr
            done["commands"] += 1
        elif answer := ANSWER.search(introduction):
            document = Caller(app, "service", "lms").get(answer[1]).get_json()
            assert holds(document, json.loads(content)), document
            done["answers"] += 1
        else:
            named = FILE.search(introduction)
            assert named, f"nothing says what is to be done with {content}"
            (tmp_path / named[1]).write_text(content)
            done["files"] += 1

    assert min(done[kind] for kind in ("files", "commands", "answers")) >= 1
    assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0
