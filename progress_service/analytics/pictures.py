"""The pictures of a report, drawn as SVG within the page, whose stylesheet gives them their colours.

Their texts are numbers and dates only: titles stand in the page, where they wrap and run in their own direction.
"""

import sys
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from typing import Any
from xml.etree.ElementTree import Element

from markupsafe import Markup

WIDTH = 330
"""The width of a picture with texts: that of a phone, where its texts have their own size."""
LEFT_OUT = {"desc", "title", "defs", "plot tooltip-overlay"}
"""The tags and classes of what pygal adds for its script and for its own style, which the page does without."""


@cache
def _library() -> Any:
    """Load pygal with the first picture: it takes 7 MB of each process, and most processes never draw one."""
    library = import_module("pygal")
    library.etree.etree.to_etree()  # lxml, which it takes where it is installed, has another interface
    # It leaves a finder of plugins in a form that Python 3.11 warns of with each import that fails, and 3.12 ignores.
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != library.__name__]
    return library


def rows(completed: Sequence[int], started: Sequence[int], stalled: Sequence[int], longest: tuple[int, int]) -> Markup:
    """Draw a bar for each row of a table: completed and other starts to the right, stalled learners to the left.

    The picture has no margin and no text, and is stretched to the height of the rows. `longest` are the most stalled
    learners and the most starts of all rows, so that several pictures have one scale.
    """
    # pygal takes half a millisecond for each row, and a module may have thousands.
    parts = {
        "completed": ((0, count) for count in completed),
        "started": zip(completed, started, strict=True),
        "stalled": ((-count, 0) for count in stalled),
    }
    paths = [
        f'<path class="{name}" d="{"".join(f"M{start} {row}.5H{end}" for row, (start, end) in enumerate(bars))}"/>'
        for name, bars in parts.items()
    ]
    left, right = longest[0], max(1, longest[1])
    box = f"{-left} 0 {left + right} {len(started)}"
    return Markup(f'<svg viewBox="{box}" preserveAspectRatio="none" focusable="false">{"".join(paths)}</svg>')


def columns(counts: Sequence[int], labels: Sequence[str], height: int, marked: Iterable[str] = ()) -> Markup:
    """Draw a column for each count, with the counts above them; or if some labels are marked, these labels alone."""
    pygal = _library()
    top = max(1, *counts)
    chart = pygal.Bar(
        **_options(WIDTH, height),
        x_labels=labels,
        x_labels_major=list(marked) or labels,
        show_minor_x_labels=False,
        truncate_label=max(map(len, labels)),
        y_labels=[0, top],
        value_formatter=short,
        show_y_labels=bool(marked),
        print_values=not marked,
        print_zeroes=False,
        print_values_position="top",
        range=(0, top if marked else top * 1.12),
        margin=6,
        spacing=6,
    )
    chart.add("counts", counts)
    return _drawn(chart)


def short(count: float) -> str:
    """Write a count in at most four characters, rounded down: 999, then 1.0k to 9.9k, 10k to 999k, 1.0M."""
    whole = int(count)
    unit, sign = (1_000_000, "M") if whole >= 1_000_000 else (1000, "k")
    if whole < 1000:
        return str(whole)
    return f"{whole // unit}{sign}" if whole >= 10 * unit else f"{whole // (unit // 10) / 10:.1f}{sign}"


def _options(width: float, height: float) -> dict[str, Any]:
    style = _library().style.Style(label_font_size=10, major_label_font_size=10, value_font_size=10)
    return {
        "width": width,
        "height": height,
        "style": style,
        "css": [],
        "js": [],
        "no_prefix": True,
        "show_legend": False,
        "disable_xml_declaration": True,
    }


def _drawn(chart: Any) -> Markup:
    def reduce(root: Element) -> Element:
        for parent in list(root.iter()):
            for child in list(parent):
                # The tag of a comment is a function.
                if not isinstance(child.tag, str) or LEFT_OUT & {child.tag, child.get("class")}:
                    parent.remove(child)
        del root.attrib["id"]
        root.set("focusable", "false")
        return root

    chart.add_xml_filter(reduce)
    return Markup(chart.render(is_unicode=True))
