"""The data sheet of a model on a runtime: memory planned and real, latency, streaming, and what they cost in energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kouling.measure import hearing, latency, memory, recordings, response
from kouling.measure.budget import Verdict
from kouling.measure.footprint import Plan
from kouling.measure.hearing import Hearing
from kouling.measure.latency import Streaming, Times
from kouling.measure.measurement import Measurement, measured
from kouling.measure.memory import Process
from kouling.measure.response import Response
from kouling.measure.runtimes import SIZES, Subject

MINUTES, LONG_MINUTES = 10.0, 60.0
# Begins a bar: what is done, of how many -> a function that takes how much of it is done.
Bar = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


@dataclass
class Datasheet:
    """Filled section by section, in the order of the fields; what is not measured (yet) is empty."""

    model: str
    runtime: str
    file: str
    step_ms: int  # audio in a step
    lookahead_ms: int
    frames: dict[str, int]  # feature frames of a call, by size
    plans: dict[str, Plan]
    copy_ms: float = 0.0  # numpy copies as many bytes as the model has
    latency: dict[str, Times] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    streaming: Streaming | None = None
    response: Response | None = None
    hearing: Hearing | None = None

    @property
    def label(self) -> str:
        return f"{self.model}:{self.runtime}"

    @property
    def busy(self) -> bool:
        """Whether other processes disturbed most calls of some size, so that their times are too long."""
        return any(times.busy for times in self.latency.values())

    @property
    def delay_ms(self) -> int:
        """Step and lookahead; the first samples of a step wait so long for what is made of them."""
        return self.step_ms + self.lookahead_ms

    @property
    def macs_per_s(self) -> float:
        """Multiply-accumulates for a second of audio, step by step."""
        return self.plans["step"].macs * 1000 / self.step_ms

    @property
    def moved_bytes_per_s(self) -> float:
        return self.plans["step"].moved_bytes * 1000 / self.step_ms

    def verdicts(self, at: str, memory_bytes: int | None, latency_ms: float | None) -> list[Verdict]:
        """at: the size of call that is judged. Memory is the larger of what is planned and what is real; latency is the
        95th percentile.

        Raises: ValueError where nothing says how long a call takes."""
        found = []
        if memory_bytes is not None:
            real = self.processes[at].private_bytes if at in self.processes else 0
            found.append(Verdict("memory", memory_bytes, max(self.plans[at].total_bytes, real), "bytes"))
        if latency_ms is not None:
            if at not in self.latency:
                raise ValueError(f"{self.label}: nothing says how long a call takes; allowed here: a budget of memory")
            found.append(Verdict("latency", latency_ms, self.latency[at].p95, "ms"))
        return found

    def to_dict(self, at: str, verdicts: Sequence[Verdict] = ()) -> dict[str, Any]:
        """What `measure --json` prints; its first keys are those of the call of size `at`."""
        first = self.plans[at]
        table: dict[str, Any] = {
            "model_bytes": first.model_bytes,
            "variable_bytes": first.variable_bytes,
            "total_bytes": first.total_bytes,
            "private_bytes": self.processes[at].private_bytes if at in self.processes else None,
            "peak_rss_bytes": self.processes[at].peak_rss_bytes if at in self.processes else None,
            "latency": {size: times.to_dict() for size, times in self.latency.items()},
            "at": at,
            "model": self.model,
            "runtime": self.runtime,
            "file": self.file,
            "frames": self.frames,
            "memory": {size: self._memory(size) for size in SIZES},
            "layers": [
                {"layer": each.name, "model_bytes": each.weight_bytes, "macs": each.macs}
                | {"activation_bytes": each.activation_bytes}
                for each in first.layers
            ],
            "delay_ms": self.delay_ms,
            "step_ms": self.step_ms,
            "lookahead_ms": self.lookahead_ms,
            "macs_per_step": self.plans["step"].macs,
            "macs_per_s": self.macs_per_s,
            "moved_bytes_per_step": self.plans["step"].moved_bytes,
            "moved_bytes_per_s": self.moved_bytes_per_s,
            "copy_model_ms": self.copy_ms,
        }
        if self.streaming:
            table["streaming"] = self.streaming.to_dict()
        if self.response:
            table["time_to_command"] = self.response.to_dict()
        if self.hearing:
            table["hearing"] = self.hearing.to_dict()
        if verdicts:
            table["verdicts"] = [each.to_dict() for each in verdicts]
        return table

    def _memory(self, size: str) -> dict[str, int | None]:
        plan, process = self.plans[size], self.processes.get(size)
        planned = {"model_bytes": plan.model_bytes, "variable_bytes": plan.variable_bytes}
        real = process.to_dict() if process else {}
        return {**planned, "total_bytes": plan.total_bytes, **real}

    def measurements(self) -> list[Measurement]:
        def figure(metric: str, value: float, unit: str, samples: int, detail: str) -> Measurement:
            return measured(metric, value, unit, self.model, self.runtime, samples, detail=detail)

        found = []
        for size, plan in self.plans.items():
            found.append(figure("planned memory", plan.total_bytes, "bytes", 1, f"{size}, batch 1"))
        for size, process in self.processes.items():
            found.append(figure("private memory", process.private_bytes, "bytes", 1, f"{size}, added by the model"))
            found.append(figure("peak memory", process.peak_rss_bytes, "bytes", 1, f"{size}, whole process"))
        for size, times in self.latency.items():
            for name, value in (("median", times.median), ("p95", times.p95), ("p99", times.p99)):
                found.append(figure("latency", value, "ms", times.calls, f"{name} at {size}, batch 1, one core"))
        if self.streaming:
            detail = f"last minute of {self.streaming.minutes:g} over second 10"
            found.append(figure("step over time", self.streaming.ratio, "", 1, detail))
        if self.response and self.response.delays_ms:
            for name, value in (("median", self.response.median_ms), ("p95", self.response.p95_ms)):
                found.append(figure("time to command", value, "ms", len(self.response.delays_ms), name))
        if self.hearing:
            found.append(figure("right", self.hearing.accuracy, "", self.hearing.clips, "thresholds as they are"))
            if self.hearing.misses is not None:
                detail = (
                    f"{self.hearing.false_alarms_per_hour:g} false alarms an hour, {self.hearing.speech_hours:.2f} h"
                )
                found.append(figure("commands missed", self.hearing.misses, "", self.hearing.clips, detail))
        return found


def begin(subject: Subject) -> Datasheet:
    """With what is known without measuring."""
    config = subject.info.config
    shift_ms = config.features.frame_shift_ms
    return Datasheet(
        subject.info.name,
        subject.form,
        subject.path.name,
        config.encoder.streaming_step_size * shift_ms,
        config.encoder.lookahead * shift_ms,
        {size: subject.frames(size) for size in SIZES},
        {size: subject.plan(size) for size in SIZES},
    )


def fill_footprint(sheets: Sequence[Datasheet], subjects: Sequence[Subject], bar: Bar) -> None:
    """Latency, all subjects in turns, and memory, each in fresh processes; of NPUs what is estimated. Raises: OSError
    where a process failed."""
    for sheet, subject in zip(sheets, subjects, strict=True):
        if subject.runtime.estimates:
            sheet.latency = latency.estimated(subject)
    pairs = zip(sheets, subjects, strict=True)
    here = [(sheet, subject) for sheet, subject in pairs if not subject.runtime.estimates]
    with bar("latency", latency.TURNS) as report:
        times = latency.measure([subject for _, subject in here], report)
    for (sheet, _), found in zip(here, times, strict=True):
        sheet.latency = found
        sheet.copy_ms = latency.copy_ms(sheet.plans["step"].model_bytes)
    with bar("memory in fresh processes", len(here) * len(SIZES)) as report:
        for index, (sheet, subject) in enumerate(here):
            for count, size in enumerate(SIZES):
                process = memory.of_fresh_process(subject.runtime.name, subject.path, size)
                if process:
                    sheet.processes[size] = process
                report(index * len(SIZES) + count + 1)


def fill_time(sheet: Datasheet, subject: Subject, minutes: float, data: Path | None, bar: Bar) -> None:
    """The streaming analysis, and the time to command on the clips of a folder; of an NPU nothing.

    Raises: ValueError as `response`."""
    if subject.runtime.estimates:
        return
    with bar(f"{minutes:g} min of audio", round(minutes * 60)) as report:
        sheet.streaming = latency.stream(subject, minutes, report)
    if data is not None:
        found = Response()
        try:
            clips = len(recordings.audio_files(data)) if data.is_dir() else None  # a tar does not say how many
            with bar("time to command", clips) as report:
                response.measure(subject.recognizer(), data, found, report)
        finally:
            sheet.response = found if found.delays_ms or found.missed else None


def fill_hearing(
    sheets: Sequence[Datasheet],
    subjects: Sequence[Subject],
    commands: Path | None,
    data: Path,
    speech: Path | None,
    rate: float,
    bar: Bar,
) -> list[str]:
    """What each hears of the same recordings, but for NPUs whose program does not run here -> a line for each
    recording that cannot be read. Raises: ValueError as `hearing.measure`."""
    skipped: list[str] = []
    for sheet, subject in zip(sheets, subjects, strict=True):
        if subject.hears:
            with bar(f"what {sheet.label} hears", hearing.passes(data, speech)) as report:
                sheet.hearing = hearing.measure(subject.opened, commands, data, speech, rate, skipped, report)
    return list(dict.fromkeys(skipped))
