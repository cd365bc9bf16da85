"""The result as a picture: time on a logarithmic axis, and memory beside it; a row a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.report import KINDS, calls, figures, time
from bench.result import ENGINE, Floor, Result, Row

COLORS = {
    ENGINE: "#c2410c",
    "ONNX Runtime": "#2563eb",
    "LiteRT": "#0f766e",
    "ExecuTorch": "#7c3aed",
    "OpenVINO": "#0891b2",
}
UNCOUNTED = "#9ca3af"


def draw(result: Result, output: Path) -> None:
    models = list(dict.fromkeys(graph.split()[0] for graph in result.frames))
    names = list(dict.fromkeys((row.name, row.host) for row in result.rows))
    size = (17, 1.2 + 0.34 * max(len(names), 3) * len(models))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(models), 4, sharey=True, squeeze=False)
    for line, model in zip(axes, models, strict=True):
        for axis, kind in zip(line, KINDS, strict=False):
            rows = [row for row in result.rows if (row.model, row.kind) == (model, kind)]
            draw_times(axis, names, rows, result.floors.get(f"{model} {kind}"))
            axis.set_title(f"{model}: {calls(result, model, kind)}", loc="left", weight="bold")
        draw_memory(line[3], names, [row for row in result.rows if (row.model, row.kind) == (model, "step")])
        line[3].set_title(f"{model}: memory of a live stream", loc="left", weight="bold")
        line[0].set_yticks(range(len(names)), [f"{name}  ({host})" for name, host in names])
    axes[0][0].invert_yaxis()  # of all: they share it
    axes[-1][1].set_xlabel("median time of a call on one core; bar: p5 to p95; dotted line: physical floor")
    axes[-1][3].set_xlabel("MB of the process; full: private, hollow: peak")
    figure.savefig(output, dpi=110)


def draw_times(axis: Axes, names: list[tuple[str, str]], rows: list[Row], floor: Floor | None) -> None:
    if floor:
        axis.axvline(floor.least_us, color="black", linestyle=":", linewidth=1.2)
    for row in rows:
        y, color = names.index((row.name, row.host)), COLORS[row.runtime] if row.counts else UNCOUNTED
        axis.plot([row.p5_us, row.p95_us], [y, y], color=color, linewidth=4, alpha=0.35, solid_capstyle="butt")
        axis.plot(row.median_us, y, "o", color=color, markersize=8)
        note = time(row.median_us) if row.counts else f"{time(row.median_us)} ✗ {row.snr_db:.0f} dB"
        # The spread of a busy machine may leave the picture; medians and notes may not.
        write(axis, min(row.p95_us, 1.5 * row.median_us), y, note, row)
    values = [row.median_us for row in rows] + ([floor.least_us] if floor else [])
    finish(axis, values, lambda us: f"{us:g} µs" if us < 1000 else f"{us / 1000:g} ms")


def draw_memory(axis: Axes, names: list[tuple[str, str]], rows: list[Row]) -> None:
    for row in rows:
        y, color = names.index((row.name, row.host)), COLORS[row.runtime] if row.counts else UNCOUNTED
        private, peak = (row.memory_kb[key] / 1024 for key in ("anonymous", "peak"))
        axis.plot([private, peak], [y, y], color=color, linewidth=1.5, alpha=0.5)
        axis.plot(private, y, "o", color=color, markersize=8)
        axis.plot(peak, y, "o", color=color, markersize=8, markerfacecolor="white")
        write(axis, peak, y, f"{figures(private)} · {figures(peak)}", row)
    finish(axis, [row.memory_kb[key] / 1024 for row in rows for key in ("anonymous", "peak")], lambda mb: f"{mb:g}")


def write(axis: Axes, x: float, y: int, text: str, row: Row) -> None:
    weight = "bold" if row.runtime == ENGINE else "normal"
    axis.annotate(text, (x, y), xytext=(8, 0), textcoords="offset points", va="center", fontsize=9, weight=weight)


def finish(axis: Axes, values: list[float] | list[int], label: Callable[[float], str]) -> None:
    """A logarithmic axis with room for the notes on the right, and ticks that can be read."""
    axis.set_xscale("log")
    if values:
        low, high = min(values) / 1.6, max(values) * 1.2
        axis.set_xlim(low, high * (high / low) ** 0.45)
    wide = values and max(values) > 50 * min(values)
    axis.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 3)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(axis="x", alpha=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
