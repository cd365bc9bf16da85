"""The house style of all pictures: a palette that the colour-blind can tell apart, few lines, the message in the title.

Pictures go into pages as SVG whose text stays text, so that a reader's own fonts show Chinese labels too.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, the strongest first; the last is for what is only there to compare with.
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
STYLE: Any = {  # matplotlib's stubs list every key there is
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans", "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "SimHei"],
}


def figure(width: float = 8.0, height: float = 4.5, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches with its axes, row by row. Raises: ValueError where matplotlib is not installed."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ValueError("pictures need matplotlib; install with: pip install 'kouling[report]'") from None
    from cycler import cycler

    with matplotlib.rc_context({**STYLE, "axes.prop_cycle": cycler(color=COLORS)}):
        made = Figure(figsize=(width, height), layout="constrained")
        axes = made.subplots(rows, columns, squeeze=False)
    return made, list(axes.flat)


def title(axes: Axes, text: str) -> None:
    """The message of a picture, on its left. (A style ends when the axes are made; titles come later.)

    Where the axes are alone, it has the whole width of the picture.
    """
    style: Any = {"fontweight": STYLE["axes.titleweight"], "fontsize": STYLE["axes.titlesize"]}
    if len(axes.figure.axes) == 1:
        axes.figure.suptitle(text, x=0.01, ha="left", **style)
    else:
        axes.set_title(text, loc="left", **style)


def svg(made: Figure) -> str:
    """The picture as one <svg> element that scales with the page."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of Chinese: the reader's fonts have it
        made.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue().decode()
    start = text.index("<svg")
    element = text[start:]
    opening = re.sub(r'\b(width|height)="[\d.]+pt"\s*', "", element[: element.index(">")])
    return opening + element[element.index(">") :]
