"""Common parts of all figures: palette, layout in inches, reproducible SVG."""

import io
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairjax.audit.formats import Number

# Okabe and Ito's palette: readers with any colour vision can distinguish it.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = (
    "-",
    "--",
    "-.",
    ":",
    (0, (6, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (1, 1)),
    (0, (8, 3)),
)
STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.hashsalt": "fairjax",
    # A name such as "$11,000 to $25,000" is not a formula.
    "text.parse_math": False,
}
# Text stays text, so that the reader's fonts can show a name in any script.
AUDIT_STYLE: dict[Any, Any] = STYLE | {"svg.fonttype": "none", "axes.axisbelow": True}
INK, FAINT, BAND = "#1a1a1a", "#5f6368", "#f2f4f7"


class Drawing(NamedTuple):
    """One figure of the report.

    Attributes:
      kind: "forest", "roc", "calibration", "decision", "sensitivity", "gaps" or
        "quadrant".
      model: Name of the model, or "" if the figure shows several.
      attribute: Name of the attribute, or "" if the figure shows several.
      slug: Name of the file without suffix.
      title: Caption of the figure.
      alt: Alternative text.
      svg: The image.
    """

    kind: str
    model: str
    attribute: str
    slug: str
    title: str
    alt: str
    svg: bytes


def render(figure: Figure) -> bytes:
    """Returns the figure as SVG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with warnings.catch_warnings():
        # The bundled font only measures text; the reader's fonts show the text.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure.savefig(buffer, format="svg", metadata=metadata)
    return buffer.getvalue()


def panel(
    figure: Figure, left: float, top: float, width: float, height: float, **options: Any
) -> Axes:
    """Adds axes at a position in inches from the left and top edges of the figure."""
    across, down = figure.get_size_inches()
    box = (left / across, 1 - (top + height) / down, width / across, height / down)
    return figure.add_axes(box, **options)


def sheet(figure: Figure) -> Axes:
    """Adds invisible axes over the figure, with coordinates in inches from top left."""
    across, down = figure.get_size_inches()
    axes = panel(figure, 0.0, 0.0, across, down)
    axes.set_axis_off()
    axes.set_xlim(0, across)
    axes.set_ylim(down, 0)
    return axes


def write(
    page: Axes, x: float, y: float, text: str, size: float = 8, **options: Any
) -> None:
    """Writes text, vertically centred and in ink unless options change this."""
    page.text(x, y, text, **{"va": "center", "color": INK, "fontsize": size} | options)


class Sign(NamedTuple):
    """An entry of a legend: a line, a marker or a band, and its name."""

    name: str
    colour: str
    line: Any = ""
    marker: str = ""
    hollow: bool = False
    band: bool = False


def legend(page: Axes, left: float, y: float, signs: Iterable[Sign]) -> None:
    """Draws a legend in a row, at a position in inches from the top left of a sheet."""
    for sign in signs:
        middle = [left, left + 0.3]
        if sign.band:
            page.fill_between(
                middle, y - 0.045, y + 0.045, color=sign.colour, alpha=0.5, linewidth=0
            )
        if sign.line:
            page.plot(middle, [y, y], color=sign.colour, linestyle=sign.line, lw=1.2)
        if sign.marker:
            page.plot(
                left + 0.15,
                y,
                sign.marker,
                color=sign.colour,
                markersize=4,
                markerfacecolor="white" if sign.hollow else sign.colour,
            )
        write(page, left + 0.36, y, sign.name, 7.5)
        left += 0.56 + 0.062 * len(sign.name)


def titled(svg: bytes, title: str) -> bytes:
    """Returns the drawing with its title above the image.

    Example:
      >>> drawn = b'<svg height="9pt" viewBox="0 0 80 9" width="80pt"><g/></svg>'
      >>> b">a &lt; b</text>" in titled(drawn, "a < b")
      True
    """
    text = svg.decode()
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    start = re.search(r"<svg[^>]*>", text)
    if size is None or start is None:
        return svg
    width, height = float(size[1]), float(size[2])
    lines = wrap(title, max(int((width - 12) / 5.2), 20))
    more = 8 + 13 * len(lines)
    head = start[0].replace(size[0], f'viewBox="0 {-more} {width:g} {height + more:g}"')
    head = re.sub(r'height="[\d.]+pt"', f'height="{height + more:g}pt"', head)
    style = "font: bold 10px 'DejaVu Sans', sans-serif"
    words = "".join(
        f'<text x="6" y="{13 * n + 13 - more}" style="{style}" fill="{INK}">'
        f"{escape(line)}</text>"
        for n, line in enumerate(lines)
    )
    back = f'<rect y="{-more}" width="{width:g}" height="{more}" fill="#ffffff"/>'
    return text.replace(start[0], f"{head}{back}{words}", 1).encode("utf-8", "replace")


def plain(text: str) -> str:
    """Returns the text on one line, without characters that do not print.

    Control characters would make the SVG ill-formed, and others reverse text.
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def wrap(text: str, width: int, lines: int = 3) -> list[str]:
    """Returns the text in lines of about ``width`` letters, cut after ``lines``.

    Breaks words that are longer than a line. Wide letters count double.
    """
    found, line, used = [], "", 0
    for word in plain(text).split(" "):
        size = _width(word)
        if line and used + 1 + size > width:
            found.append(line)
            line, used = "", 0
        if line:
            line, used = f"{line} {word}", used + 1 + size
            continue
        for letter in word:
            step = _width(letter)
            if line and used + step > width:
                found.append(line)
                line, used = "", 0
            line, used = line + letter, used + step
    found.append(line)
    if len(found) > lines:
        found = [*found[: lines - 1], found[lines - 1].rstrip() + "…"]
    return found


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def limits(
    values: Sequence[Number], *, bounded: bool, least: float = 0.1
) -> tuple[Number, Number]:
    """Returns the range of an axis around all values, about [0, 1] if bounded."""
    low, high = min(values), max(values)
    room = max(0.06 * (high - low), (least - (high - low)) / 2, 0.01)
    low, high = low - room, high + room
    return (max(low, -0.005), min(high, 1.005)) if bounded else (low, high)
