"""The files that the guides show."""

import re
from pathlib import Path

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
BLOCK = re.compile(r"(.*)\n\n?```(\w+)\n((?:.*\n)*?)```\n")
"""What introduces a block, the language of the block, and the block."""
FILE = re.compile(r"\*\*([\w.]+)\*\*")


def files(guide: str) -> dict[str, str]:
    """Return the files of a guide by their names; what introduces one is the line before it."""
    blocks = BLOCK.findall((GUIDES / f"{guide}.md").read_text())
    return {named[1]: content for introduction, _, content in blocks if (named := FILE.search(introduction))}
