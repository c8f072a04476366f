"""Matplotlib drawings as inline SVG whose letters and colours are the page's own, so that they follow it into the
dark; the same drawing always gives the same bytes."""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib
from cycler import cycler
from markupsafe import Markup
from matplotlib.figure import Figure

# Stand-ins that matplotlib draws with, and the page's colours that they become.
INK, GRID = "#010101", "#020202"
COLOURS = tuple(f"#0a000{n}" for n in range(1, 7))
PAGE_COLOURS = {INK: "currentColor", GRID: "var(--grid)"} | {c: f"var(--line-{c[-1]})" for c in COLOURS}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched and is set in the page's font
    "svg.hashsalt": "kogia",  # ids are random without it
    "text.parse_math": False, "font.size": 10, "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": GRID, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 9,
    "figure.constrained_layout.use": True, "axes.prop_cycle": cycler(color=COLOURS),
}  # fmt: skip


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw as the report does, whatever the user's own matplotlibrc says."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser has the letters
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def to_svg(figure: Figure, prefix: str, title: str, description: str) -> Markup:
    """A figure as an <svg> element for the middle of a page.

    prefix: begins every id, so that several figures can share a page; title, description: what is read aloud to who
    does not see it.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = re.sub(r".*?<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", buffer.getvalue(), count=1, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg).replace("xlink:href", "href")
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)
    svg = re.sub("|".join(PAGE_COLOURS), lambda found: PAGE_COLOURS[found[0]], svg)
    head = Markup('<svg role="img" aria-labelledby="{0}-title {0}-desc" ').format(prefix)
    words = Markup('<title id="{0}-title">{1}</title><desc id="{0}-desc">{2}</desc>').format(prefix, title, description)
    start = svg.index(">") + 1  # what follows is matplotlib's, which escapes the text in it
    return head + Markup(svg[len("<svg ") : start]) + words + Markup(svg[start:])
