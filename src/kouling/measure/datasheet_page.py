"""The page of a data sheet, and that of several side by side, with their pictures."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kouling.measure import pictures
from kouling.measure.budget import Verdict
from kouling.measure.datasheet import Datasheet
from kouling.measure.footprint import ACTIVATION, IO, STATE, Buffer, Plan
from kouling.measure.page import Page
from kouling.measure.runtimes import SIZES
from kouling.measure.words import Say, speaker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED_ROLES = 6  # that have a colour of their own; the rest are grey, by kind
BUSY = "Other processes disturbed most calls: times are too long. Measure on an idle machine."
OTHERS = {STATE: "other state", IO: "other input and output", ACTIVATION: "other activations"}


def prepare(folder: Path) -> None:
    """Before long work: whether a report can be written there at all.

    Raises: ValueError where matplotlib is missing; OSError, one line, where the folder cannot be written.
    """
    pictures.figure()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise OSError(f"{folder}: no report can be written there: {error.strerror}") from None


def megabytes(size: float | None) -> str:
    return "–" if size is None else f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} KB"


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value * 1000:.1f} µs" if value < 1 else f"{value:.2f} ms"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


def median_ms(sheet: Datasheet, size: str) -> float | None:
    """Of a call; None where nothing says how long it takes."""
    return sheet.latency[size].median if size in sheet.latency else None


def page(sheet: Datasheet, at: str, verdicts: Sequence[Verdict], lang: str = "en") -> Page:
    """Of all sections that are measured. Raises: ValueError for a language that there is none of."""
    say = speaker(lang)
    made = Page(f"{say('Data sheet')}: {sheet.model} · {sheet.runtime}", lang)
    made.measurements = sheet.measurements()
    for verdict in verdicts:
        made.verdict(_verdict(verdict, at, say), verdict.passed)
    _memory(made, sheet, at, say)
    if sheet.latency:
        _latency(made, sheet, say)
    if sheet.streaming:
        flow = sheet.streaming
        made.heading(say("Does it slow down?"))
        made.text(
            say(
                "A step takes {early} around second 10 and {late} in the last minute of {minutes}: {ratio} times."
            ).format(
                early=milliseconds(flow.early_ms),
                late=milliseconds(flow.late_ms),
                minutes=f"{flow.minutes:g}",
                ratio=f"{flow.ratio:.3f}",
            )
        )
        made.picture(pictures.svg(over_time(sheet, say)), say("From samples to commands: features, encoder, decoder."))
    made.heading(say("Delay"))
    made.text(
        say("Step {step} ms + lookahead {lookahead} ms = {delay} ms; a feature frame adds 15 ms.").format(
            step=sheet.step_ms, lookahead=sheet.lookahead_ms, delay=sheet.delay_ms
        )
    )
    if sheet.response and sheet.response.delays_ms:
        heard = sheet.response
        made.text(
            say(
                "From the end of a spoken command to its event: median {median} ms, 95 % within {p95} ms; "
                "{heard} clips heard, {missed} missed, {skipped} skipped."
            ).format(
                median=f"{heard.median_ms:.0f}",
                p95=f"{heard.p95_ms:.0f}",
                heard=len(heard.delays_ms),
                missed=heard.missed,
                skipped=len(heard.skipped),
            )
        )
        made.picture(pictures.svg(to_command(sheet, say)))
    return made


def comparison(sheets: Sequence[Datasheet], lang: str = "en") -> Page:
    say = speaker(lang)
    made = Page(f"{say('Side by side')}: {', '.join(sheet.label for sheet in sheets)}", lang)
    made.measurements = [each for sheet in sheets for each in sheet.measurements()]
    made.table(*comparison_table(sheets, say))
    for line in heard_on(sheets, say):
        made.text(line, soft=True)
    for sheet in sheets:
        if sheet.busy:
            made.text(f"{sheet.label}: {say(BUSY)}")
    made.picture(pictures.svg(side_by_side(sheets, say)))
    return made


def comparison_table(sheets: Sequence[Datasheet], say: Say) -> tuple[list[str], list[list[str]]]:
    """Head and rows; a sheet a row."""
    head = [say("model"), say("total planned"), say("private"), say("peak")]
    head += [f"{say(size)}" for size in SIZES] + [say("delay")]
    heard = [sheet.hearing for sheet in sheets if sheet.hearing]
    head += [say("right")] if heard else []
    missed = next((each.false_alarms_per_hour for each in heard), None)
    head += [say("missed at {rate}/h").format(rate=f"{missed:g}")] if missed is not None else []
    rows = []
    for sheet in sheets:
        process = sheet.processes.get("500")
        row = [sheet.label, megabytes(sheet.plans["500"].total_bytes)]
        row += [
            megabytes(process.private_bytes if process else None),
            megabytes(process.peak_rss_bytes if process else None),
        ]
        row += [milliseconds(median_ms(sheet, size)) for size in SIZES] + [f"{sheet.delay_ms} ms"]
        hears = sheet.hearing
        row += [percent(hears.accuracy if hears else None)] if heard else []
        row += [percent(hears.misses if hears else None)] if missed is not None else []
        rows.append(row)
    return head, rows


def heard_on(sheets: Sequence[Datasheet], say: Say) -> list[str]:
    """What the last columns of a comparison rest on."""
    found = next((sheet.hearing for sheet in sheets if sheet.hearing), None)
    if found is None:
        return []
    lines = [say("Right: {clips} clips, thresholds as they are.").format(clips=found.clips)]
    if found.misses is not None:
        told = say("Missed: commands, all thresholds moved together to keep the rate in {hours} h of speech.")
        lines.append(told.format(hours=f"{found.speech_hours:.2f}"))
    return lines


def _verdict(verdict: Verdict, at: str, say: Say) -> str:
    show = megabytes if verdict.unit == "bytes" else milliseconds
    return f"{say(verdict.budget)} ({say(at)}): {show(verdict.found)} / {show(verdict.limit)}"


def _memory(made: Page, sheet: Datasheet, at: str, say: Say) -> None:
    made.heading(say("Memory"))
    rows = []
    for size in SIZES:
        plan, process = sheet.plans[size], sheet.processes.get(size)
        planned = [megabytes(value) for value in (plan.model_bytes, plan.variable_bytes, plan.total_bytes)]
        real = [process.private_bytes, process.process_private_bytes, process.peak_rss_bytes] if process else [None] * 3
        rows.append([say(size), *planned, *(megabytes(value) for value in real)])
    head = ["batch 1", "model", "variables", "total planned", "private", "private, whole process", "peak"]
    made.table([say(cell) for cell in head], rows, bold=[list(SIZES).index(at)])
    made.text(
        say("Planned: counted. Private and peak: what the system says of a fresh process; MB = 1,000,000 bytes."),
        soft=True,
    )
    plan = sheet.plans[at]
    made.picture(
        pictures.svg(buffers(plan, say)), say("What is in memory while the encoder runs, operation by operation.")
    )
    made.table(
        [say("layer"), say("weights"), say("multiply-accumulates"), say("activations, peak")],
        [
            [
                layer_name(each.block, each.part, say),
                megabytes(each.weight_bytes),
                f"{each.macs / 1e6:.2f} M",
                megabytes(each.activation_bytes),
            ]
            for each in plan.layers
        ],
    )


def _latency(made: Page, sheet: Datasheet, say: Say) -> None:
    made.heading(say("Latency"))
    made.table(
        [say(cell) for cell in ("batch 1, one core", "median", "p95", "p99", "real-time factor")],
        [
            [
                f"{say(size)} ({sheet.frames[size]})",
                milliseconds(times.median),
                milliseconds(times.p95),
                milliseconds(times.p99),
                f"{times.real_time_factor:.5f}",
            ]
            for size, times in sheet.latency.items()
        ],
    )
    if sheet.busy:
        made.text(say(BUSY))
    made.text(
        say("A step: {macs} M multiply-accumulates; numpy copies as many bytes as the model has in {copy}.").format(
            macs=f"{sheet.plans['step'].macs / 1e6:.2f}", copy=milliseconds(sheet.copy_ms)
        )
    )
    made.text(
        say("Energy, by proxy: {macs} M multiply-accumulates and {moved} MB moved for a second of audio.").format(
            macs=f"{sheet.macs_per_s / 1e6:.1f}", moved=f"{sheet.moved_bytes_per_s / 1e6:.1f}"
        )
    )


def layer_name(block: int, part: str, say: Say) -> str:
    return f"{say('block')} {block}: {say(part)}" if block else say(part)


def buffers(plan: Plan, say: Say) -> Figure:
    """Which buffer lives when: bytes in use, stacked, over the operations; the peak named."""
    groups = _groups(plan)
    colors = dict(zip(groups, ("#D8D8D8", "#B4B4B4", "#909090", *pictures.COLORS), strict=False))
    made, (axes,) = pictures.figure(9, 4.8)
    count = len(plan.operations)
    stacked = [
        [sum(b.bytes for b in plan.at(index) if _group(b, groups) == name) / 1000 for index in range(count)]
        for name in groups
    ]
    edges = list(range(count + 1))
    below = [0.0] * count
    for name, heights in zip(groups, stacked, strict=True):
        above = [low + height for low, height in zip(below, heights, strict=True)]
        axes.fill_between(
            edges,
            [*below, below[-1]],
            [*above, above[-1]],
            step="post",
            color=colors[name],
            label=say(name),
            linewidth=0,
        )
        below = above
    peak, most = plan.peak, max(plan.live_bytes)
    operation = plan.operations[peak]
    if plan.arena_bytes:
        reserved = plan.variable_bytes / 1000
        axes.axhline(reserved, color="black", linestyle="--", linewidth=1.2, label=say("reserved from the start"))
    largest = list(_largest(plan, peak).items())[:3]
    named = ", ".join(f"{say(role)} {megabytes(size)}" for role, size in largest)
    text = f"{say('peak')} {megabytes(most)}: {layer_name(operation.block, operation.part, say)}\n{named}"
    top = max(most, plan.variable_bytes) / 1000
    left = peak > count / 2
    axes.annotate(
        text,
        (peak + 0.5, most / 1000),
        (0.02 if not left else 0.98, 0.98),
        textcoords="axes fraction",
        ha="right" if left else "left",
        va="top",
        fontsize=9,
        arrowprops={"arrowstyle": "->"},
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )
    axes.set_ylim(0, top * 1.45)
    axes.set_xlim(0, count)
    starts = [i for i in range(count) if i == 0 or plan.operations[i].block != plan.operations[i - 1].block]
    names = [
        f"{say('block')} {plan.operations[i].block}" if plan.operations[i].block else say(plan.operations[i].part)
        for i in starts
    ]
    axes.set_xticks(starts, names, ha="left", fontsize=9)
    axes.set_ylabel("KB")
    pictures.title(axes, f"{say('Memory besides the model')}, {plan.frames} {say('frames')}")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4, fontsize=9)
    return made


def _groups(plan: Plan) -> list[str]:
    """The roles that take most at the peak, and what is left of each kind."""
    named = list(_largest(plan, plan.peak))[:NAMED_ROLES]
    return [*OTHERS.values(), *named]


def _group(buffer: Buffer, groups: Sequence[str]) -> str:
    return buffer.role if buffer.role in groups else OTHERS[buffer.kind]


def _largest(plan: Plan, index: int) -> dict[str, int]:
    """Bytes of each role in use during an operation, the largest first: what to attack."""
    found: dict[str, int] = {}
    for each in plan.at(index):
        found[each.role] = found.get(each.role, 0) + each.bytes
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def over_time(sheet: Datasheet, say: Say) -> Figure:
    flow = sheet.streaming
    assert flow
    made, (axes,) = pictures.figure(8, 4)
    axes.fill_between(
        flow.at_s, flow.p5_ms, flow.p95_ms, alpha=0.2, color=pictures.COLORS[1], label="5–95 %", linewidth=0
    )
    axes.plot(flow.at_s, flow.median_ms, color=pictures.COLORS[1], label=say("median"))
    axes.set_xscale("log")
    axes.set_ylim(0, 1.6 * max(flow.median_ms))
    axes.set_xlabel(say("seconds since the start"))
    axes.set_ylabel("ms")
    pictures.title(axes, say("Time of a step: {ratio} times that of second 10").format(ratio=f"{flow.ratio:.3f}"))
    axes.legend(frameon=False)
    return made


def to_command(sheet: Datasheet, say: Say) -> Figure:
    heard = sheet.response
    assert heard
    made, (axes,) = pictures.figure(8, 3.5)
    axes.hist(heard.delays_ms, bins=30, color=pictures.COLORS[1])
    for value, name in ((heard.median_ms, say("median")), (heard.p95_ms, "95 %")):
        axes.axvline(value, color=pictures.COLORS[0], linestyle="--", linewidth=1.2)
        axes.text(value, axes.get_ylim()[1], f" {name} {value:.0f} ms", va="top", fontsize=9)
    axes.set_xlabel(say("ms from the end of the command to its event"))
    axes.set_ylabel(say("clips"))
    pictures.title(axes, say("Time to command"))
    return made


def side_by_side(sheets: Sequence[Datasheet], say: Say) -> Figure:
    made, (memory, time) = pictures.figure(10, 1.6 + 0.75 * len(sheets), columns=2)
    names = [sheet.label for sheet in sheets]
    rows = list(range(len(sheets)))
    planned = [sheet.plans["500"].total_bytes / 1e6 for sheet in sheets]
    real = [sheet.processes["500"].private_bytes / 1e6 if sheet.processes else math.nan for sheet in sheets]
    for shift, values, name in ((-0.19, planned, "total planned"), (0.19, real, "private")):
        bars = memory.barh([row + shift for row in rows], values, 0.36, label=say(name))
        memory.bar_label(bars, fmt=lambda value: "" if math.isnan(value) else f"{value:.1f}", padding=3, fontsize=9)
    pictures.title(memory, f"{say('Memory')}, {say('500')}, MB")
    for index, size in enumerate(SIZES):
        times = [median_ms(sheet, size) for sheet in sheets]
        widths = [math.nan if each is None else each for each in times]
        bars = time.barh([row + (index - 1) * 0.26 for row in rows], widths, 0.24, label=say(size))
        time.bar_label(bars, labels=[milliseconds(each) for each in times], padding=3, fontsize=9)
    if any(sheet.latency for sheet in sheets):
        time.set_xscale("log")
    pictures.title(time, f"{say('Latency')}, {say('median')}, ms")
    for axes in (memory, time):
        axes.set_yticks(rows, names if axes is memory else [""] * len(names))
        axes.invert_yaxis()
        axes.margins(x=0.3)
        axes.grid(axis="y", visible=False)
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, fontsize=9)
    return made
