"""What the documents say of settings, commands, routes, rights, problems, tallies, files and functions is so."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pytest
from flask import Flask

from progress_service import calculations, config, tallies
from progress_service.web import problems
from progress_service.web.auth import Role
from progress_service.web.openapi.document import template

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "progress_service"
DOCUMENTS = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")] + [
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "bench" / "README.md",
]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in DOCUMENTS}
README, CONTRACT, OPERATING, ARCHITECTURE = (
    TEXTS[name] for name in ("README.md", "docs/contract.md", "docs/operating.md", "docs/architecture.md")
)
TARGETS = set(re.findall(r"^([a-z-]+):.* ## ", (ROOT / "Makefile").read_text(), re.M))
MADE_LATER = ("instance/",)
"""Where `make run` and the benches write."""


def section(text: str, title: str) -> str:
    """Return what stands under a heading of the second level."""
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(text: str) -> list[list[str]]:
    """Return the cells of a text's tables, but for their headers."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines][1:]


def code(cell: str) -> list[str]:
    """Return what a text has between single backticks."""
    return re.findall(r"(?<!`)`([^`]+)`(?!`)", cell)


def routes(app: Flask) -> Iterator[tuple[str, str, str]]:
    """Yield the method, the path and the endpoint of every operation, as documents write them."""
    for rule in app.url_map.iter_rules():
        if not rule.endpoint.endswith(".static"):
            for method in sorted((rule.methods or set()) - {"HEAD"}):
                yield method, template(rule), rule.endpoint


def test_every_setting_is_in_the_table_with_its_default() -> None:
    told = {code(name)[0]: default.replace("`", "") for name, default, _ in table(section(OPERATING, "Settings"))}

    def written(default: str | bool | config.Whole) -> str:
        if isinstance(default, config.Whole):
            return f"{default.default}, {default.least} to {default.most}"
        return str(default).lower() if isinstance(default, bool) else default

    settings = {f"PROGRESS_{name}": written(default) for name, default in config.DEFAULTS.items()}
    others = {name: written(default) for name, default in config.FOR_PLATFORMS.items()}
    keys = {f"PROGRESS_{name}": "" for name in config.KEYS}
    algorithm = {"PROGRESS_JWT_ALGORITHM": "HS256 with a secret, else RS256"}
    assert told == settings | others | keys | algorithm


def test_every_setting_that_a_file_may_hold_is_named() -> None:
    told = section(OPERATING, "Settings").split("\nA file may hold ")[1].partition(":")[0]

    assert code(told) == [f"PROGRESS_{name}" for name in config.FROM_FILES]


def test_every_command_is_in_the_table(app: Flask) -> None:
    def leaves(command: click.Command, *path: str) -> Iterator[str]:
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                yield from leaves(inner, *path, name)
        elif not command.hidden:
            yield " ".join(path)

    told = [re.sub(r" \[?[A-Z_]+\]?$", "", code(command)[0]) for command, _ in table(section(OPERATING, "Commands"))]

    ours = set(leaves(app.cli))
    assert {name for name in told if not name.startswith("db ")} == {name for name in ours if not name.startswith("db")}
    assert {name for name in told if name.startswith("db ")} <= ours


def test_every_route_is_in_the_readme_and_has_its_section_in_the_contract(app: Flask) -> None:
    known = {f"{method} {path}" for method, path, _ in routes(app)}
    guarded = {route for route in known if " /api/" in route}

    assert sorted(code(route)[0] for route, _ in table(section(README, "Routes"))) == sorted(known)
    assert set(re.findall(r"^### `(.+)`$", CONTRACT, re.M)) == guarded
    told = {code(route)[0] for route, _ in table(section(CONTRACT, "Operations without a token"))}
    assert told == known - guarded


@pytest.mark.parametrize("dialect", ["postgresql", "sqlite"])
def test_the_statements_of_every_route_are_written_down(dialect: str, app: Flask) -> None:
    written = (ROOT / "docs" / "sql" / f"{dialect}.sql").read_text()

    shown = {title.partition(",")[0] for title in re.findall(r"^-- ([A-Z]+ /.+)$", written, re.M)}
    guarded = {f"{method} {path}" for method, path, _ in routes(app) if path.startswith("/api/")}
    assert guarded - shown == set(), "tests/sql.py must call them"


def test_the_contracts_table_of_rights_is_what_every_route_declares(app: Flask) -> None:
    section_text = section(CONTRACT, "Who may do what")
    roles = re.findall(r"^\| operation \|(.+)\|$", section_text, re.M)[0].replace(" ", "").split("|")
    told = {code(route)[0]: dict(zip(roles, rights, strict=True)) for route, *rights in table(section_text)}

    declared = {}
    for method, path, endpoint in routes(app):
        policy = vars(app.view_functions[endpoint])["operation"].policy
        if policy:
            declared[f"{method} {path}"] = {
                role: " or ".join(str(reach.name).lower() for reach in getattr(policy, role)) or "no" for role in Role
            }
    assert told == declared
    assert f"strongest counts: {', '.join(f'`{role}`' for role in reversed(Role))}." in " ".join(section_text.split())


def test_every_field_and_query_parameter_is_in_the_contract() -> None:
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())

    def fields(schema: Any) -> Iterator[str]:
        for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
            yield from fields(part)
        if isinstance(schema, dict) and isinstance(schema.get("properties"), dict):
            yield from schema["properties"]

    parameters = [
        one for path in document["paths"].values() for method in path.values() for one in method["parameters"]
    ]
    named = {one["name"] for one in parameters if one.get("in") == "query"} | set(fields(document["components"]))
    assert named - set(re.findall(r"[A-Za-z]+", " ".join(code(CONTRACT)))) == set()


def test_every_problem_is_in_the_table_with_its_status() -> None:
    told = {code(slug)[0]: int(status) for slug, status, _ in table(section(CONTRACT, "Refusals"))}

    assert told == {kind.slug: kind.status for kind in problems.PROBLEM_TYPES}


def test_the_table_of_tallies_names_the_columns_that_each_kind_of_group_has() -> None:
    told = {code(kind)[0]: set(code(columns)) for kind, _, _, columns, _ in table(section(ARCHITECTURE, "Tallies"))}

    now = datetime(2026, 1, 31, tzinfo=UTC)
    active = calculations.Enrollment("sam", "algebra", "active", now, 1, 1, 1, None, now, "sets")
    completed = active._replace(status="completed", completed_at=now)
    record = calculations.Record(
        UUID(int=1), "sam", "algebra", "sets", now, now, 100, 1, score=1, max_score=1, completed_at=now
    )
    module = calculations.Denominators(total_weight=1, total_contents=1)
    kept: defaultdict[str, set[str]] = defaultdict(set)
    for shares in (
        tallies.of_enrollment(active, module),
        tallies.of_enrollment(completed, module),
        tallies.of_record(record),
        tallies.of_record(record._replace(excused_at=now)),
        tallies.of_day(calculations.ActivityDay("sam", "algebra", date(2026, 1, 31), 1)),
    ):
        for group, counts in shares:
            kept[group.kind] |= {name for name, value in counts._asdict().items() if value}
    assert told == kept
    assert list(told) == list(tallies.KINDS)


def exists(path: str) -> bool:
    """Tell whether there is a file or folder, below the repository or the package; a name alone may be anywhere."""
    return (ROOT / path).exists() or (PACKAGE / path).exists() or ("/" not in path and any(PACKAGE.rglob(path)))


def is_missing(name: str) -> bool:
    """Tell whether a name, if it is that of a module and something in it, is of something that is not there."""
    module, _, attribute = name.partition(".")
    paths = [path for path in PACKAGE.rglob("*.py") if path.stem == module]
    if not paths or not re.fullmatch(r"[a-z_]+", attribute) or attribute in ("py", "json", "md"):
        return False
    return not any(
        hasattr(import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)), attribute) for path in paths
    )


def is_broken(link: str, document: str) -> bool:
    """Tell whether a link, written in a document, leads to no file, or to no heading in it."""
    path, _, anchor = link.partition("#")
    target = (ROOT / document).parent / path if path else ROOT / document
    if not anchor or not target.exists():
        return not target.exists()
    headings = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
    return anchor not in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", TEXTS)
def test_every_file_function_and_link_in_a_document_leads_somewhere(document: str) -> None:
    names = code(TEXTS[document])
    paths = [name for name in names if re.fullmatch(r"[\w.][\w./-]*(\.(py|md|json|cfg|txt|toml|mako|sql)|/)", name)]
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", TEXTS[document])

    assert [path for path in paths if not path.startswith(MADE_LATER) and not exists(path)] == []
    assert [name for name in names if is_missing(name)] == []
    assert {name.split()[1] for name in names if re.fullmatch(r"make [a-z-]+", name)} <= TARGETS
    assert [link for link in links if is_broken(link, document)] == []


def test_every_chapter_that_the_code_refers_to_exists() -> None:
    code_texts = [path.read_text() for path in PACKAGE.rglob("*.py")]
    cited = {found for text in code_texts for found in re.findall(r'(docs/[\w/-]+\.md)[,( ]+"([^"]+)"', text)}

    assert cited
    assert {(path, title) for path, title in cited if f"## {title}\n" not in TEXTS[path]} == set()
