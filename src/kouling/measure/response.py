"""Time to command: from the end of a spoken command to the moment when a live stream says it, on real clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kouling import audio
from kouling.measure import recordings, stream
from kouling.recognizer import Recognizer

WAIT_S = 3.0  # of silence behind a clip, in which its command may still come


@dataclass
class Response:
    """Delays in milliseconds of the commands heard right, and what else became of the clips."""

    delays_ms: list[float] = field(default_factory=list)
    missed: int = 0  # not heard, or heard as something else
    skipped: list[str] = field(default_factory=list)  # unreadable, or labels that are no commands of the model

    @property
    def median_ms(self) -> float:
        return float(np.median(self.delays_ms))

    @property
    def p95_ms(self) -> float:
        return float(np.percentile(self.delays_ms, 95))

    def to_dict(self) -> dict[str, Any]:
        found = {"median_ms": self.median_ms, "p95_ms": self.p95_ms} if self.delays_ms else {}
        counts = {"heard": len(self.delays_ms), "missed": self.missed, "skipped": len(self.skipped)}
        return {**found, **counts, "delays_ms": [round(each, 1) for each in self.delays_ms]}


def measure(
    heard_by: Recognizer, folder: Path, result: Response, report: Callable[[int], None] | None = None
) -> Response:
    """Fills `result` clip by clip, so that an interrupt leaves what was done. report: gets the clips done.

    The audio comes in portions of one step; the command's time is that of the last sample heard when `accept` returned
    it. Computing is not in it: see the latency of a step. The end of speech is `noise.speech_bounds`.

    Raises: ValueError where the folder holds no clip of any command of the model.
    """
    config = heard_by.info.config
    portion = config.encoder.streaming_step_size * config.features.hop_samples
    names = {spec.name for spec in heard_by.command_set.commands}
    for count, (label, name, file) in enumerate(recordings.labelled(folder)):
        if report:
            report(count)
        if label not in names:
            result.skipped.append(f"{name}: {label!r} is no command of {heard_by.info.name}")
            continue
        try:
            samples = audio.read(file)
        except (ValueError, OSError) as error:
            result.skipped.append(" ".join(str(error).split()))
            continue
        delay_s = stream.time_to_command_s(heard_by, samples, label, stream.live(samples, portion, WAIT_S))
        if delay_s is None:
            result.missed += 1
        else:
            result.delays_ms.append(delay_s * 1000)
    if not result.delays_ms and not result.missed:
        raise ValueError(
            f"{folder}: no clip of a command of {heard_by.info.name}; its commands: {', '.join(sorted(names))}"
        )
    return result
