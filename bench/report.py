"""The result as tables, the same ones for the terminal (rich) and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.result import CANDID, LEAST_SNR_DB, Comparison, Result, Row

KINDS = ("step", "300", "500")


@dataclass(frozen=True)
class Plain:
    """A table as text. The first `left` columns are words, the others numbers."""

    title: str
    header: list[str]
    rows: list[list[str]]
    left: int = 1

    def markdown(self) -> str:
        marks = ["---" if column < self.left else "---:" for column in range(len(self.header))]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.header, marks, *self.rows)]
        return "\n".join([f"### {self.title}", "", *lines])

    def rich(self) -> Table:
        table = Table(title=self.title, title_justify="left", title_style="bold")
        for column, name in enumerate(self.header):
            table.add_column(name, justify="left" if column < self.left else "right", no_wrap=column > 0)
        for row in self.rows:
            table.add_row(*map(escape, row), style="bold" if row[0].startswith("kouling") else None)
        return table


def figures(value: float) -> str:
    """Three of them, but no fewer than those before the point."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def time(us: float) -> str:
    return f"{figures(us)} µs" if us < 1000 else f"{figures(us / 1000)} ms"


def spread(row: Row) -> str:
    """The median, and p5 and p95 in the same unit."""
    scale = 1 if row.median_us < 1000 else 1000
    return f"{time(row.median_us)} ({figures(row.p5_us / scale)}–{figures(row.p95_us / scale)})"


def calls(result: Result, model: str, kind: str) -> str:
    return "one step" if kind == "step" else f"{result.frames[f'{model} {kind}']} frames"


def megabytes(kb: int) -> str:
    return f"{kb / 1024:.2f}" if kb < 10240 else f"{kb / 1024:.1f}"


def times(result: Result, model: str) -> Plain:
    """A row a variant: the three graphs and how near to PyTorch they are."""
    found = {(row.name, row.host, row.kind): row for row in result.rows if row.model == model}
    rows = []
    for name, host in dict.fromkeys(key[:2] for key in found):
        cells = []
        for kind in KINDS:
            row = found.get((name, host, kind))
            mark = "" if row is None or row.counts else " ✗"
            cells += [f"{spread(row)}{mark}", f"{row.snr_db:.0f}"] if row else ["–", "–"]
        rows.append([name, host, *cells])
    header = ["", "host"]
    for kind in KINDS:
        header += [calls(result, model, kind), "dB"]
    return Plain(f"{model}: time of a call, median (p5–p95), and its signal-to-noise ratio", header, rows, 2)


def memory(result: Result, model: str) -> Plain:
    """A row a variant: private and peak memory of its process, and what the model has of it."""
    found = {(row.name, row.host, row.kind): row for row in result.rows if row.model == model}
    rows = []
    for name, host in dict.fromkeys(key[:2] for key in found):
        cells = []
        for kind in ("step", "500"):
            row = found.get((name, host, kind))
            for key in ("anonymous", "peak"):
                cells += [megabytes(row.memory_kb[key]), megabytes(row.model_kb(key))] if row else ["–", "–"]
        rows.append([name, host, *cells])
    header = ["", "host"]
    for kind in ("step", "500"):
        header += [f"{calls(result, model, kind)}: private", "of the model", "peak", "of the model"]
    return Plain(f"{model}: memory of a process of its own, MB", header, rows, 2)


def comparison(result: Result) -> Plain:
    rows = []
    for each in result.comparisons():
        rows.append(
            [
                f"{each.model}, {calls(result, each.model, each.kind)}",
                each.engine.scheme,
                each.peer.name if each.peer else "none",
                time(each.engine.median_us),
                time(each.peer.median_us) if each.peer else "–",
                factor(each.ratio),
                verdict(each),
                factor(each.from_python),
                *floors(each),
            ]
        )
    header = ["", "engine in", "best peer", "engine", "peer", "peer / engine", "aim", "both from Python"]
    return Plain("The engine and its best peer", [*header, "floor", "engine / floor", "floor in AMX tiles"], rows, 3)


def factor(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}×"


def verdict(each: Comparison) -> str:
    if each.aim is None or each.ratio is None:
        return "–"
    return f"{each.aim:.0f}× {'reached' if each.ratio >= each.aim else 'missed'}"


def floors(each: Comparison) -> list[str]:
    if each.floor is None:
        return ["–", "–", "–"]
    tiles = "–" if each.floor.amx_us is None else time(max(each.floor.amx_us, each.floor.reading_us))
    return [time(each.floor.least_us), factor(each.above_floor), tiles]


def notes(result: Result) -> list[str]:
    """What one must know to read the tables, and what went wrong."""
    machine, peaks = result.machine, result.peaks
    lines = [
        f"{machine['cpu']}, core {machine['core']} of {machine['cores']}, one thread; {result.rounds} rounds by turns; "
        f"load {machine['load_before']:.2f} before, {machine['load_after']:.2f} after; {machine['date']}.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in result.versions.items()) + ".",
    ]
    if peaks:
        tiles = f", {peaks['amx_macs_per_s'] / 1e9:.0f} in AMX tiles" if peaks["amx_macs_per_s"] else ""
        rates = [f"{rate / 1e9:.0f} GB/s from {int(size) / 1e6:.2f} MB" for size, rate in peaks["bytes_per_s"].items()]
        arithmetic = (
            f"{peaks['macs_per_s'] / 1e9:.0f} G int8 multiply-accumulates a second ({peaks['instructions']}{tiles})"
        )
        lines.append(f"Floor: {arithmetic}; weights read once at {', '.join(rates)}.")
    for row in result.rows:
        if not row.counts:
            kind = "below" if row.scheme in CANDID else "WRONG, below"
            lines.append(
                f"✗ {row.name} ({row.host}), {row.model} {row.kind}: {kind} {LEAST_SNR_DB:.0f} dB, not counted."
            )
    return lines + [f"Not measured: {what}: {why}" for what, why in result.failures.items()]


def tables(result: Result) -> list[Plain]:
    models = dict.fromkeys(graph.split()[0] for graph in result.frames)
    return [comparison(result), *(table(result, model) for table in (times, memory) for model in models)]


def markdown(result: Result) -> str:
    """The whole page: what is measured and how (page.md), tables, notes."""
    page = Path(__file__).with_name("page.md").read_text(encoding="utf-8").strip()
    return "\n\n".join([page, *(table.markdown() for table in tables(result)), *notes(result)]) + "\n"


def show(result: Result, console: Console) -> None:
    for table in tables(result):
        console.print(table.rich())
    for line in notes(result):
        console.print(line, highlight=False, markup=False)
