"""The study of the time grid: what `streaming_chunk_size`, `max_cached_frames`, `streaming_step_size` and the threshold
buy and cost, on real clips, in the engine. Each setting is a model of its own, made by `grid.adapt`."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling import audio, checkpoint, recognizer
from kouling.audio import SAMPLE_RATE_HZ
from kouling.checkpoint import ModelInfo
from kouling.commands import CommandSet
from kouling.deploy import model_file
from kouling.deploy.engine import LIVE, Engine, EngineRecognizer
from kouling.measure.accuracy import SILENCE, UNKNOWN, Evaluation, decide, label_of
from kouling.measure.footprint import macs_per_s
from kouling.measure.grid import Setting, adapt, own_setting
from kouling.measure.intervals import wilson
from kouling.measure.measurement import Measurement, measured
from kouling.measure.recordings import labelled
from kouling.measure.stream import time_to_command_s
from kouling.recognizer import Recognizer

QUICK_CLIPS = 500
TIMED_CLIPS = 1000  # of which the time to command is measured, at most
LISTENED_S = 2.0  # of silence behind a clip, for what is decided late
SPEED_AUDIO_S, SPEED_ROUNDS = 8, 15  # of the measurement of compute
WINDOW_TAIL = 240  # samples of a feature frame beyond its hop: 15 ms

Recording = tuple[str, str, Any]  # label, name, file


@dataclass
class Outcome:
    """One setting that was run."""

    setting: Setting
    info: ModelInfo
    path: Path  # the model, for the engine
    as_trained: bool = False  # but for the threshold
    evaluation: Evaluation = field(default_factory=Evaluation)
    waits_s: list[float] = field(default_factory=list)  # of commands heard rightly: from their end to the event
    speeds: list[float] = field(default_factory=list)  # microseconds of a core for a second of audio
    model_bytes: int = 0
    stream_bytes: int = 0

    @property
    def accuracy(self) -> float:
        return self.evaluation.accuracy

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        clips = self.evaluation.clips
        return wilson(round(self.accuracy * clips), clips)

    @property
    def microseconds(self) -> float:
        return float(np.median(self.speeds))

    @property
    def multiply_accumulates(self) -> int:
        return macs_per_s(self.info.config, len(self.info.units))

    @property
    def total_bytes(self) -> int:
        return self.model_bytes + self.stream_bytes

    def wait_ms(self, percent: float) -> float | None:
        return float(np.percentile(self.waits_s, percent)) * 1000 if self.waits_s else None

    @property
    def costs(self) -> tuple[float, ...]:
        """What should be small: errors, delay, multiply-accumulates, bytes. None of them varies from run to run."""
        return 1 - self.accuracy, self.setting.delay_ms, self.multiply_accumulates, self.total_bytes


def checkpoint_of(model: str | Path) -> Path:
    """The checkpoint of a model's name, folder, checkpoint or exported form, for its weights to be changed.

    Raises: ValueError where there is none.
    """
    path = Path(model)
    if not (path.is_file() and path.suffix == ".safetensors"):
        folder = path if (path / "model.safetensors").is_file() else recognizer.find_model(model).parent
        path = folder / "model.safetensors"
    if not path.is_file():
        raise ValueError(f"{model}: tuning changes weights and needs the checkpoint, {path}, which is not there")
    return path


def info_of(model: str | Path) -> ModelInfo:
    """What a model is. Raises: ValueError as `checkpoint_of`."""
    return checkpoint.load_info(checkpoint_of(model))


class Study:
    """Settings that can be run, and the model's own, each as a model of the engine in a folder that `close` removes."""

    def __init__(
        self, model: str | Path, data: Path, settings: Sequence[Setting], command_set: Path | None, quick: bool
    ) -> None:
        """Raises: ValueError where the model, the data or every one of the settings is unusable."""
        self.info, self.weights = checkpoint.load(checkpoint_of(model))
        self.command_set = recognizer.chosen_commands(self.info, command_set)
        self.recordings = order(data, self.command_set)
        self.there = len(self.recordings)
        self.recordings = self.recordings[:QUICK_CLIPS] if quick else self.recordings
        self.done = 0  # clips that every setting has heard
        self.unreadable: list[str] = []
        self.impossible: list[tuple[Setting, str]] = []
        self.outcomes: list[Outcome] = []
        self._folder = tempfile.TemporaryDirectory(prefix="kouling-tune-")
        for setting in settings:
            try:
                self.outcomes.append(self._build(setting))
            except ValueError as error:
                self.impossible.append((setting, str(error)))
        if not self.outcomes:
            self.close()
            reasons = "; ".join(f"{setting}: {reason}" for setting, reason in self.impossible[:3])
            raise ValueError(f"{self.info.name}: no setting can be run without training ({reasons})")
        own = own_setting(self.info.config.encoder)
        if own not in settings:  # to compare with
            self.outcomes.append(self._build(own))

    def _build(self, setting: Setting) -> Outcome:
        info, weights = adapt(self.info, self.weights, setting)
        packed = model_file.pack(info, weights, self.command_set)
        path = Path(self._folder.name) / f"{len(self.outcomes)}.kouling"
        path.write_bytes(packed)
        own = own_setting(self.info.config.encoder)
        return Outcome(setting, info, path, replace(setting, threshold=None) == own, model_bytes=len(packed))

    def close(self) -> None:
        self._folder.cleanup()

    def run(self, report: Callable[[int], None] = lambda clips: None) -> None:
        """All settings on one clip after the other, in an order that does not depend on the labels: stopped at any
        time, all have heard the same clips, which are like the rest. report: called with the number of clips done.

        Raises: ValueError where no clip could be read.
        """
        engines = [Engine(outcome.path) for outcome in self.outcomes]
        judges = [engine.recognizer(self.command_set) for engine in engines]
        live = [_live(engine, self.command_set) for engine in engines]
        for outcome, stream in zip(self.outcomes, live, strict=True):
            outcome.stream_bytes = stream._stream.size
        self._speeds(live)
        names = [spec.name for spec in self.command_set.commands]
        timed = 0
        for done, (folder, name, file) in enumerate(self.recordings, start=1):
            try:
                samples = audio.read(file, name)
            except ValueError as error:
                self.unreadable.append(str(error))
                continue
            label = label_of(folder, names)
            decided = [decide(judge, samples) for judge in judges]
            timed += label in names
            waits: list[float | None] = [None] * len(live)
            if label in names and timed <= TIMED_CLIPS:
                waits = [
                    wait_s(stream, samples, label, outcome.setting.step)
                    if command is not None and command.name == label
                    else None
                    for stream, outcome, command in zip(live, self.outcomes, decided, strict=True)
                ]
            for outcome, command, wait in zip(self.outcomes, decided, waits, strict=True):
                outcome.evaluation.add(label, command.name if command else None, command.confidence if command else 1.0)
                outcome.waits_s += [] if wait is None else [wait]
            self.done += 1
            report(done)
        if not self.done:
            raise ValueError(f"no clip could be read; the first: {self.unreadable[0]}")

    def _speeds(self, live: Sequence[EngineRecognizer]) -> None:
        """Seconds of the first recordings, each in turn by every setting, a step at a time inside the engine."""
        heard, length = [], 0
        for _, name, file in self.recordings:
            try:
                heard.append(audio.read(file, name))
            except ValueError:
                continue  # told when its turn comes
            if hasattr(file, "seek"):  # a member of a tar, to be read again
                file.seek(0)
            length += len(heard[-1])
            if length >= SPEED_AUDIO_S * SAMPLE_RATE_HZ:
                break
        if not length:
            return
        samples = np.resize(np.concatenate(heard), SPEED_AUDIO_S * SAMPLE_RATE_HZ)
        for round_number in range(SPEED_ROUNDS + 1):
            for outcome, stream in zip(self.outcomes, live, strict=True):
                stream.reset()
                began = time.thread_time()  # the core's time: others' work on it does not count
                stream.accept(samples)
                taken = time.thread_time() - began
                if round_number:  # the first warms up
                    outcome.speeds.append(taken * 1e6 / SPEED_AUDIO_S)

    def pareto(self) -> list[Outcome]:
        """Those that no other is at least as good as in everything, and better in something."""
        return [one for one in self.outcomes if not any(dominates(other, one) for other in self.outcomes)]

    def best(self, delay_ms: float) -> Outcome | None:
        """The most accurate of at most this delay; of several the one with least work, then least delay."""
        fitting = [each for each in self.outcomes if each.setting.delay_ms <= delay_ms]
        return min(fitting, key=lambda each: (-each.accuracy, each.multiply_accumulates, each.costs), default=None)

    def write(self, outcome: Outcome, output: Path) -> None:
        """A setting as a model of the engine, or as a checkpoint where the name ends so. Raises: OSError."""
        if output.suffix == ".safetensors":
            info, weights = adapt(self.info, self.weights, outcome.setting)
            checkpoint.save(output, info, weights)
        else:
            checkpoint.write_whole(output, outcome.path.read_bytes())

    def reasons(self) -> dict[str, list[str]]:
        """Why settings could not be run -> which."""
        found: dict[str, list[str]] = {}
        for setting, reason in self.impossible:
            found.setdefault(reason, []).append(str(setting))
        return found

    def to_dict(self, delay_ms: float) -> dict[str, Any]:
        """What `--json` prints. Bytes, milliseconds; `microseconds` and `multiply_accumulates` a second of audio."""
        front, best = self.pareto(), self.best(delay_ms)
        rows = [
            {
                **each.setting.axes(),
                "accuracy": round(each.accuracy, 6),
                "interval": [round(bound, 6) for bound in each.interval],
                "delay_ms": each.setting.delay_ms,
                "time_to_command_ms": {
                    "median": _rounded(each.wait_ms(50)),
                    "p95": _rounded(each.wait_ms(95)),
                    "commands": len(each.waits_s),
                },
                "multiply_accumulates": each.multiply_accumulates,
                "microseconds": round(each.microseconds, 2),
                "model_bytes": each.model_bytes,
                "stream_bytes": each.stream_bytes,
                "total_bytes": each.total_bytes,
                "as_trained": each.as_trained,
                "pareto": each in front,
            }
            for each in self.outcomes
        ]
        return {
            "model": self.info.name,
            "clips": self.done,
            "clips_there": self.there,
            "unreadable": self.unreadable,
            "delay_ms": delay_ms,
            "best": None if best is None else best.setting.axes(),
            "settings": rows,
            "impossible": [{**setting.axes(), "reason": reason} for setting, reason in self.impossible],
        }

    def measurements(self) -> list[Measurement]:
        made = []
        for each in self.outcomes:
            detail = str(each.setting)
            waits = [
                (f"time to command, {name}", each.wait_ms(percent)) for name, percent in (("median", 50), ("p95", 95))
            ]
            rows = [
                ("accuracy", each.accuracy, "", each.evaluation.clips),
                *((name, value, "ms", len(each.waits_s)) for name, value in waits if value is not None),
                ("compute", each.microseconds, "us/s", len(each.speeds)),
                ("multiply-accumulates", each.multiply_accumulates, "1/s", 1),
                ("memory", each.total_bytes, "bytes", 1),
            ]
            made += [
                measured(metric, value, unit, self.info.name, "engine", samples, detail=detail)
                for metric, value, unit, samples in rows
            ]
        return made


def order(data: Path, command_set: CommandSet) -> list[Recording]:
    """The labelled recordings in an order that their names alone decide, labels mixed.

    Raises: ValueError where there are none, all have one label, or none is of a command.
    """
    found = sorted(labelled(data), key=lambda each: hashlib.sha1(each[1].encode()).digest())
    names = [spec.name for spec in command_set.commands]
    folders = sorted({label for label, _, _ in found})
    known = [label for label in folders if label_of(label, names) not in (SILENCE, UNKNOWN)]
    if not known:
        raise ValueError(
            f"{data}: no folder is named after a command; found {', '.join(folders[:6])}; commands: {', '.join(names)}"
        )
    if len(folders) == 1:
        raise ValueError(f"{data}: only clips of {folders[0]!r}; a study needs clips of two labels or more")
    return found


def wait_s(stream: Recognizer, samples: NDArray[np.int16], label: str, step: int) -> float | None:
    """Seconds from the end of the word in a clip to the event, fed a step at a time, each portion completing a step,
    and silence behind the clip; None where there is no such event."""
    heard = np.concatenate([samples, np.zeros(round(LISTENED_S * SAMPLE_RATE_HZ), dtype=np.int16)])
    size = step * SAMPLE_RATE_HZ // 100
    stops = range(size + WINDOW_TAIL, len(heard) + 1, size)
    return time_to_command_s(stream, samples, label, (heard[a:b] for a, b in zip((0, *stops), stops, strict=False)))


def _live(engine: Engine, command_set: CommandSet) -> EngineRecognizer:
    """A stream that computes one step at a time, as on a device."""
    packed = model_file.pack_commands(engine.info, command_set)
    return EngineRecognizer(engine.info, command_set, engine.stream(LIVE, packed))


def dominates(one: Outcome, other: Outcome) -> bool:
    pairs = list(zip(one.costs, other.costs, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
