"""What people see in a terminal: timelines, tables, bars of progress."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from kouling.commands import Command
from kouling.slot_types import Value

if TYPE_CHECKING:
    from kouling.measure.accuracy import Evaluation
    from kouling.measure.budget import Verdict
    from kouling.measure.datasheet import Datasheet
    from kouling.measure.mining import Mined
    from kouling.measure.stream import StreamResult
    from kouling.measure.thresholds import Calibration
    from kouling.teach.enrol import Enrolled
    from kouling.teach.run import Taught


SURE = 0.9  # of what is in no doubt


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader has left: for the command line to decide, where rich would end with status 1."""
        raise BrokenPipeError


console = _Console(highlight=False)
errors = _Console(stderr=True, highlight=False)


def command_json(file: str, command: Command) -> str:
    """One object a line, as the contract of `listen --json` has it."""
    fields = asdict(command)
    name, slots, confidences = fields.pop("name"), fields.pop("slots"), fields.pop("slot_confidences")
    event = {"file": file, "command": name, **fields}
    more = {"slots": slots, "slot_confidences": confidences} if slots else {}
    return json.dumps({**event, **more}, ensure_ascii=False)


def color_of(confidence: float) -> str:
    return "green" if confidence >= 0.9 else "yellow" if confidence >= 0.7 else "red"


def timeline(file: str, heard: list[Command], seconds: float) -> None:
    """A recording as one line of time with its commands on it, and one line for each command."""
    console.print(Text.assemble((file, "bold"), (f"  {seconds:.1f} s", "dim")))
    if not heard:
        console.print("  [dim]no command[/]")
        return
    width = max(min(console.width - 4, 100), 20)
    line = ["─"] * width
    colors: dict[int, str] = {}
    for command in heard:
        start = min(int(command.start_s / max(seconds, 1e-9) * width), width - 1)
        stop = max(min(int(command.end_s / max(seconds, 1e-9) * width), width), start + 1)
        for column in range(start, stop):
            line[column] = "█"
            colors[column] = color_of(command.confidence)
    track = Text("  ")
    for column, character in enumerate(line):
        track.append(character, style=colors.get(column, "dim"))
    console.print(track)
    for command in heard:
        live(command)


def nearly(command: Command, number: int | None = None) -> None:
    """One command that was too unsure to be heard."""
    called = "" if number is None else f"{number:3d} "
    console.print(
        f"[dim]{called}  {command.start_s:7.2f} – {command.end_s:6.2f} s   nearly {escape(command.name)}, "
        f"{command.confidence:.0%}[/]"
    )


def live(command: Command, number: int | None = None) -> None:
    """One command, as it is heard; number: by which its user may call it."""
    called = "" if number is None else f"{number:3d} "
    bar = "▮" * round(command.confidence * 10)
    color = color_of(command.confidence)
    when = f"{command.start_s:7.2f} – {command.end_s:6.2f} s"
    slots = escape("".join(map(slot, command.slots.items(), command.slot_confidences.values())))
    name = escape(f"{command.name:<14}")
    console.print(f"{called}  {when}   [bold]{name}[/] [{color}]{bar:<10}[/] {command.confidence:4.0%}{slots}")


def slot(said: tuple[str, Value | list[Value]], confidence: float) -> str:
    """A slot of an event; how sure it is only where it is in doubt."""
    name, value = said
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"   {name}: {text}" + (f" ({confidence:.0%})" if confidence < SURE else "")


def evaluation(result: Evaluation) -> None:
    """Recall by label, with what it was mistaken for most, and the accuracy of all."""
    table = Table(box=None, header_style="bold")
    for column, justify in (("label", "left"), ("clips", "right"), ("right", "right"), ("mistaken for", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    figures = result.to_dict()
    for label, row in figures["per_label"].items():
        wrong = [f"{escape(name)} {count}" for name, count in figures["confusions"][label].items() if name != label][:4]
        table.add_row(escape(label), str(row["clips"]), f"{row['recall']:.1%}", ", ".join(wrong))
    console.print(table)
    for confidence, right, count in result.reliability():
        console.print(f"[dim]of {count} commands reported at {confidence:.0%} on average, {right:.0%} were right[/]")
    if result.agreed is not None:
        agreement = result.agreed / max(result.clips, 1)
        console.print(f"[bold]{agreement:.2%}[/] of the clips decided as the other model does")
    console.print(f"[bold]{result.accuracy:.2%}[/] of {result.clips} clips")


def stream(result: StreamResult) -> None:
    if result.spoken:
        console.print(f"[bold]{result.found}[/] of {result.spoken} commands found", end=", ")
    rate = result.false_alarms / max(result.hours, 1e-9)
    console.print(f"[bold]{result.false_alarms}[/] false alarms in {result.hours:.2f} h ({rate:.1f} an hour)")
    for name, at_s in result.wrong[:10]:
        console.print(f"  [dim]{int(at_s // 60):4d}:{at_s % 60:04.1f}[/]  {escape(name)}")


def calibration(result: Calibration) -> None:
    """The thresholds, and what they rest on."""
    table = Table(box=None, header_style="bold")
    for column in ("command", "before", "threshold", "clips", "heard", "false alarms"):
        table.add_column(column, justify="left" if column == "command" else "right")
    for each in result.commands:
        recall = "-" if each.recall is None else f"{each.recall:.1%}"
        table.add_row(
            escape(each.name), f"{each.before:g}", f"{each.threshold:g}", str(each.clips), recall, str(each.alarms)
        )
    console.print(table)
    figures = result.to_dict()
    low, high = figures["recall_interval"]
    console.print(f"[bold]{figures['recall']:.2%}[/] of {figures['clips']} clips heard (95 %: {low:.1%} to {high:.1%})")
    if result.clips:
        console.print(f"[bold]{result.clips_wrong}[/] of {result.clips} clips of other words and noise taken for one")
    low, high = result.interval_per_hour
    console.print(
        f"[bold]{result.alarms}[/] false alarms in {result.hours:.2f} h without commands: "
        f"[bold]{figures['false_alarms_per_hour']:.2f}[/] an hour (95 %: {low:.2f} to {high:.2f})"
    )
    if not result.proven:
        console.print(
            f"[yellow]too little to show {result.asked_per_hour:g} an hour: "
            f"that takes {3 / result.asked_per_hour:.1f} h without a command[/]"
        )


def mined(result: Mined, output: Path) -> None:
    """How many false alarms of each command, in how much audio."""
    counts = Counter(event.name for event in result.events)
    if counts:
        console.print("  ".join(f"{escape(name)} [bold]{count}[/]" for name, count in counts.most_common()))
    before = f"; {result.before} were done before" if result.before else ""
    console.print(
        f"[bold]{len(result.events)}[/] false alarms in {result.seconds / 3600:.2f} h of {result.recordings} recordings"
        f"{before}; in {escape(str(output))}"
    )


def taught(result: Taught) -> None:
    """What a taught model is worth, on what that rests, and what to change."""
    calibration(result.calibration)
    console.print(f"[dim]on {result.rests_on()}[/]")
    for line in result.advice():
        console.print(f"[yellow]advice[/] {escape(line)}")


def enrolled(result: Enrolled, path: Path, model: str) -> None:
    """What an enrolled command is worth, and how to listen for it."""
    count = len(result.templates.recordings)
    for problem in result.problems:
        console.print(f"[yellow]left out[/] {escape(problem)}")
    console.print(
        f"[bold]{escape(result.name)}[/] from {count} recordings, threshold {result.threshold}; "
        f"{result.heard} of {count} heard by the templates of the others; "
        f"{result.alarms} false alarms in {result.hours:.1f} h of other speech"
    )
    console.print(
        f"in {escape(str(path))}; try it: kouling listen --mic --model {model} --commands {escape(str(path))}"
    )


def written(what: str, path: Path) -> None:
    console.print(f"{what} [bold]{escape(str(path))}[/]")


def datasheet(sheet: Datasheet, at: str, verdicts: Sequence[Verdict]) -> None:
    """What of it is measured, as tables; then the verdicts."""
    from kouling.measure.datasheet_page import megabytes, milliseconds

    console.print(f"[bold]{escape(sheet.label)}[/]  [dim]{escape(sheet.file)}, batch 1, MB = 1,000,000 bytes[/]")
    memory, latency = [], []
    for size, plan in sheet.plans.items():
        process, times = sheet.processes.get(size), sheet.latency.get(size)
        name = f"{size}" if size == "step" else f"{sheet.frames[size]} frames"
        planned = [megabytes(each) for each in (plan.model_bytes, plan.variable_bytes, plan.total_bytes)]
        real = [
            megabytes(process.private_bytes if process else None),
            megabytes(process.peak_rss_bytes if process else None),
        ]
        memory.append([name, *planned, *real])
        if times:
            shown = [milliseconds(each) for each in (times.median, times.p95, times.p99)]
            latency.append([name, *shown, f"1/{1 / times.real_time_factor:.0f}"])
    _table(["memory", "model", "variables", "total", "private", "peak"], memory)
    if latency:
        _table(["latency", "median", "p95", "p99", "real time"], latency)
    if sheet.busy:
        console.print("[yellow]other processes disturbed most calls: times are too long; measure on an idle machine[/]")
    plan = sheet.plans[at]
    _table(
        [f"layer, {sheet.frames[at]} frames", "weights", "multiply-accumulates", "activations"],
        [
            [each.name, megabytes(each.weight_bytes), f"{each.macs / 1e6:.2f} M", megabytes(each.activation_bytes)]
            for each in plan.layers
        ],
    )
    peak, most = plan.operations[plan.peak], max(plan.live_bytes)
    console.print(f"most in use: {megabytes(most)}, in {peak.layer} ({peak.name})")
    console.print(
        f"a second of audio: {sheet.macs_per_s / 1e6:.1f} M multiply-accumulates, "
        f"{megabytes(sheet.moved_bytes_per_s)} moved"
    )
    if sheet.copy_ms:
        console.print(
            f"numpy copies as many bytes as the model has in {milliseconds(sheet.copy_ms)} [dim](a yardstick)[/]"
        )
    if sheet.streaming:
        flow = sheet.streaming
        console.print(
            f"streaming, samples to commands: {milliseconds(flow.early_ms)} a step around second 10, "
            f"{milliseconds(flow.late_ms)} in the last minute of {flow.minutes:g}: {flow.ratio:.3f} times"
        )
    console.print(f"delay: step {sheet.step_ms} ms + lookahead {sheet.lookahead_ms} ms = {sheet.delay_ms} ms")
    if sheet.response:
        heard = sheet.response
        if heard.delays_ms:
            console.print(
                f"time to command: median {heard.median_ms:.0f} ms, p95 {heard.p95_ms:.0f} ms "
                f"({len(heard.delays_ms)} clips; {heard.missed} missed, {len(heard.skipped)} skipped)"
            )
        for line in heard.skipped[:5]:
            errors.print(f"  [dim]skipped {escape(line)}[/]")
    for verdict in verdicts:
        form = megabytes if verdict.unit == "bytes" else milliseconds
        word = "[green]pass[/]" if verdict.passed else "[red]fail[/]"
        console.print(f"{word}  {verdict.budget} at {at}: {form(verdict.found)} of {form(verdict.limit)}")


def comparison(sheets: Sequence[Datasheet]) -> None:
    from kouling.measure.datasheet_page import comparison_table, heard_on
    from kouling.measure.words import speaker

    _table(*comparison_table(sheets, speaker("en")))
    for line in heard_on(sheets, speaker("en")):
        console.print(f"[dim]{line}[/]", highlight=False)
    for sheet in sheets:
        if sheet.busy:
            console.print(f"[yellow]{escape(sheet.label)}: other processes disturbed most calls; times are too long[/]")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column to the left, the others to the right."""
    table = Table(box=None, header_style="bold")
    for index, column in enumerate(head):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def models(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, header_style="bold")
    for column in ("model", "language", "parameters", "size", "accuracy", "commands"):
        table.add_column(column, overflow="fold")
    for row in rows:
        accuracy = f"{row['accuracy']:.2%}" if row["accuracy"] is not None else "-"
        size = f"{row['bytes'] / 1e6:.1f} MB"
        parameters = f"{row['parameters'] / 1e6:.2f} M" if row["parameters"] is not None else "-"
        table.add_row(
            escape(row["name"]), escape(row["language"]), parameters, size, accuracy, escape(" ".join(row["commands"]))
        )
    console.print(table)


@contextmanager
def progress(description: str, total: int | None = None, shown: bool = True) -> Iterator[Any]:
    """A bar with ETA on stderr; the value is a function that takes how much is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not (shown and errors.is_terminal)) as bar:
        task: TaskID = bar.add_task(description, total=total)
        yield lambda done: bar.update(task, completed=done)
