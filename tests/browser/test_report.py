"""The report of a module in a browser: nothing is cut, overlaps or is hard to read, in any form that readers have."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Page

from progress_service.analytics.pictures import columns
from progress_service.analytics.report import STYLE
from tests.callers import Caller, token
from tests.conftest import application, migrate, served

KEPT = Path(__file__).parents[2] / "instance" / "report"
"""Where the tests leave what they have seen."""
NASTY = [
    "Reading from several tables at once: joins of all kinds, when to use which of them, and what they cost" * 2,
    "\N{ARABIC LETTER ALEF WITH HAMZA ABOVE}\N{ARABIC LETTER SEEN}\N{ARABIC LETTER ALEF}\N{ARABIC LETTER SEEN}" * 20,
    "<script>alert('1')</script> \"quotes\"",
    "\N{PARTY POPPER}\N{FAMILY} Party \N{RIGHT-TO-LEFT OVERRIDE}backwards",
    "x" * 200,
    "Sum",
]

CUT = """() => [...document.querySelectorAll("body *")].filter(one =>
    one.scrollWidth > one.clientWidth + 1 && one.clientWidth && getComputedStyle(one).display != "inline" &&
    getComputedStyle(one).textOverflow != "ellipsis" && !one.closest("svg") && !one.closest("details:not([open])")
).map(one => one.outerHTML.slice(0, 200))"""
"""Elements whose content is wider than they are, but for those that say so by an ellipsis."""
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
OUTSIDE = """() => [...document.querySelectorAll("svg text")].filter(text => {
    const inner = text.getBoundingClientRect(), outer = text.closest("svg").getBoundingClientRect();
    return inner.left < outer.left || inner.right > outer.right || inner.top < outer.top || inner.bottom > outer.bottom;
}).map(text => text.textContent)"""
OVERLAPPING = """() => [...document.querySelectorAll("svg")].flatMap(svg => {
    const texts = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
    return texts.flatMap(([name, a], place) => texts.slice(place + 1).filter(([_, b]) =>
        a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom
    ).map(([other]) => `${name} and ${other}`));
})"""
MISPLACED = """() => [...document.querySelectorAll(".contents tbody")].flatMap(group => {
    const rows = [...group.rows].map(row => row.getBoundingClientRect());
    const bars = group.querySelector(".rows .completed"), { d: height, f: top } = bars.getScreenCTM();
    const half = parseFloat(getComputedStyle(bars).strokeWidth) / 2;
    const places = [...bars.getAttribute("d").matchAll(/ (\\S+)H/g)].map(([, place]) => Number(place));
    if (places.length != rows.length) return [`${places.length} bars of ${rows.length} rows`];
    return rows.flatMap((row, place) => {
        const [upper, lower] = [-half, half].map(away => top + height * (places[place] + away));
        return upper < row.top || lower > row.bottom ? [`${place}`] : [];
    });
})"""
FAINT = """() => {
    const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(part => part / 255)
        .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const paper = light(getComputedStyle(document.body).backgroundColor);
    const texts = [...document.querySelectorAll("body *")].filter(one =>
        [...one.childNodes].some(node => node.nodeType == 3 && node.data.trim()));
    return texts.map(one => {
        const style = getComputedStyle(one), ink = light(one.closest("svg") ? style.fill : style.color);
        return [(Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05), one.textContent];
    }).filter(([contrast]) => contrast < 4.5);
}"""
"""Texts with less contrast than WCAG 2 demands at level AA."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service with a module that is hard to show, a longer, a small and an empty one."""
    url = f"sqlite:///{tmp_path_factory.mktemp('report')}/progress.db"
    migrate(url)
    with application(url) as app:
        fill(app)
        with served(app) as address:
            yield address


def fill(app: Flask) -> None:
    """Publish the modules, and let a thousand learners work on the first, and a few on the third."""
    titles = [NASTY[place % len(NASTY)][:200] for place in range(60)]
    modules = {
        "large": [(title, f"{place // 8}: {title}"[:200]) for place, title in enumerate(titles)],
        "long": [(f"Lesson {place}", f"Part {place // 20}") for place in range(130)],
        "small": [(f"Lesson {place}", "Basics") for place in range(5)],
        "empty": [],
    }
    for name, contents in modules.items():
        published = [
            {"id": f"{name}-{place}", "title": title, "type": "video", "section": section}
            for place, (title, section) in enumerate(contents)
        ]
        module = {"title": NASTY[len(contents) % len(NASTY)][:200], "contents": published}
        assert Caller(app, "admin", "ada").put(f"/api/catalog/modules/{name}", json=module).status_code == 201
    now = datetime.now(UTC)
    updates = [
        {
            "userId": f"{'9f1c33ab-' * (learner % 5)}{learner}",
            "contentId": f"large-{min(place, learner % 60)}",
            "progressPercentage": 100 if learner % 3 else 40,
            "occurredAt": (now - timedelta(days=(learner * 7) % 80)).isoformat(),
        }
        for place in (0, 10, 20, 30, 50)
        for learner in range(1000)
    ]
    updates += [{"userId": f"u{learner}", "contentId": "small-0", "progressPercentage": 50} for learner in range(3)]
    service = Caller(app, "service", "lms")
    for start in range(0, len(updates), 1000):
        response = service.post("/api/progress/batch", json={"updates": updates[start : start + 1000]})
        assert response.status_code == 200, response.text


def show(page: Page, address: str, module: str) -> None:
    page.set_extra_http_headers({"Authorization": f"Bearer {token('ada', 'admin')}"})
    answer = page.goto(f"{address}/api/progress/stats/{module}/report")
    assert answer is not None
    assert answer.status == 200
    assert page.evaluate("() => getComputedStyle(document.querySelector('svg, p')).display") == "block", "has its style"


def faults(page: Page) -> dict[str, Any]:
    looked = {"wider": WIDER, "cut": CUT, "outside": OUTSIDE, "overlapping": OVERLAPPING}
    looked |= {"misplaced": MISPLACED, "faint": FAINT}
    return {name: found for name, look in looked.items() if (found := page.evaluate(look))}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 820, 1280])
def test_everything_can_be_seen_at_every_width(width: int, scheme: Any, page: Page, address: str) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    for module in ("large", "long", "small", "empty"):
        show(page, address, module)
        page.screenshot(path=KEPT / f"{module}-{width}-{scheme}.png", full_page=True)
        assert faults(page) == {}, module
        page.evaluate("() => document.querySelectorAll('details').forEach(one => one.open = true)")
        assert faults(page) == {}, f"{module}, with its tables"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_the_colours_that_a_reader_has_forced(scheme: Any, page: Page, address: str) -> None:
    page.emulate_media(color_scheme=scheme, forced_colors="active")
    show(page, address, "large")

    assert faults(page) == {}
    keys = "() => [...document.querySelectorAll('.key')].map(key => getComputedStyle(key, '::before').backgroundColor)"
    assert len(set(page.evaluate(keys))) == 3


@pytest.mark.parametrize(("module", "pages"), [("large", 2), ("small", 1), ("empty", 1)])
def test_it_prints_on_two_pages_of_a4_at_most(module: str, pages: int, page: Page, address: str) -> None:
    page.emulate_media(color_scheme="dark")
    show(page, address, module)

    printed = page.pdf(path=KEPT / f"{module}.pdf", prefer_css_page_size=True)

    sizes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed)
    assert {(round(float(width)), round(float(height))) for width, height in sizes} == {(595, 842)}
    assert len(re.findall(rb"/Type /Page\b", printed)) == pages
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 703, "height": 1032})
    assert faults(page) == {}
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_large_counts_stand_beside_each_other(page: Page) -> None:
    counts = [888_888 + place for place in range(11)]
    labels = [f"{10 * place}" for place in range(11)]
    pictures = [columns(counts, labels, 220), columns(counts, labels, 110, labels[::5])]
    page.set_viewport_size({"width": 328, "height": 800})

    page.set_content(f"<style>{STYLE} body {{ padding: 0 }}</style>{''.join(pictures)}")

    assert page.get_by_text("888k").count() == 12  # above each column, and at the axis
    assert (page.evaluate(OUTSIDE), page.evaluate(OVERLAPPING)) == ([], [])
