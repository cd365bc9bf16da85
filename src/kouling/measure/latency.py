"""How long calls take: batch 1, one pinned core, warmed up, in turns, so that what disturbs one disturbs all.

Calls during which the system gave the core to another process are left out, and counted, while half of them remain.
The clock is read in Python around each call; the engine's calls cost Python one to four microseconds more than C.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.audio import SAMPLE_RATE_HZ
from kouling.deploy.pytorch import one_thread
from kouling.features import LogMel
from kouling.measure import noise
from kouling.measure.runtimes import SIZES, Subject
from kouling.recognizer import Recognizer

TURNS = 60
CALLS_A_TURN = {"step": 50, "300": 2, "500": 2}  # timed
WARMING_CALLS = {"step": 10, "300": 1, "500": 1}  # before them: the one before has filled the processor's caches
LOOP_S = 12  # of the audio that streams hear again and again; a whole number of steps of 10, 30, 40, 50 or 60 ms
EARLY_S = (5.0, 15.0)  # around second 10
LATE_S = 60.0  # the last minute
YOUNG = 6  # times that the seconds around second 10 are heard
BINS_A_DECADE = 10

Report = Callable[[int], None]  # how much is done


@dataclass(frozen=True)
class Times:
    """Of one call, in milliseconds."""

    median: float
    p95: float
    p99: float
    calls: int  # of which these are the statistics
    disturbed: int  # in which another process had the core
    busy: bool  # these were most, so they are not left out: the machine was too busy to measure on
    real_time_factor: float  # median over the duration of the audio in the call

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@contextmanager
def quiet_core() -> Iterator[None]:
    """One core for this thread, PyTorch on one thread, no garbage collection; all as before afterwards."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    collecting = gc.isenabled()
    if cores:
        os.sched_setaffinity(0, {max(cores)})
    gc.disable()
    try:
        with one_thread():
            yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
        if collecting:
            gc.enable()


def measure(subjects: Sequence[Subject], report: Report | None = None) -> list[dict[str, Times]]:
    """For each subject the times of each size. Streams have been running for a while: their caches are full.

    report: gets the number of turns done, of `TURNS`.
    """
    with quiet_core():
        tasks = [(index, size, *_task(subject, size)) for index, subject in enumerate(subjects) for size in SIZES]
        found: list[dict[str, list[tuple[int, bool]]]] = [{size: [] for size in SIZES} for _ in subjects]
        for turn in range(TURNS):
            for index, size, call, _ in tasks:
                for _ in range(WARMING_CALLS[size]):
                    call()
                found[index][size] += [_watched_ns(call) for _ in range(CALLS_A_TURN[size])]
            if report:
                report(turn + 1)
    audio_ms = {(index, size): duration for index, size, _, duration in tasks}
    return [{size: _times(each[size], audio_ms[index, size]) for size in SIZES} for index, each in enumerate(found)]


def estimated(subject: Subject) -> dict[str, Times]:
    """The times of each size on an NPU, as its compiler estimates them, if it does: no calls were made."""
    shift_ms, found = subject.info.config.features.frame_shift_ms, {}
    for size in SIZES:
        taken = subject.estimated_ms(size)
        if taken is None:
            continue
        found[size] = Times(taken, taken, taken, 0, 0, False, taken / (subject.frames(size) * shift_ms))
    return found


def _task(subject: Subject, size: str) -> tuple[Callable[[], object], float]:
    """A call to be timed, with full caches, and the milliseconds of audio in it."""
    config, frames, call = subject.info.config, subject.frames(size), subject.call(size)
    heard = LogMel(config.features).accept(sound(frames * config.features.frame_shift_ms / 1000 + 1))[:frames]
    for _ in range(math.ceil(config.encoder.max_cached_frames / frames) + 3):
        call(heard)
    return lambda: call(heard), float(frames * config.features.frame_shift_ms)


def time_ns(call: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start


def _watched_ns(call: Callable[[], object]) -> tuple[int, bool]:
    """Nanoseconds, and whether another process had the core meanwhile."""
    before = _switches()
    taken = time_ns(call)
    return taken, _switches() != before


def _switches() -> int:
    """How often the system took the core from this thread for another one; 0 where it does not say."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
    except (ImportError, AttributeError):
        return 0


def _times(found: Sequence[tuple[int, bool]], audio_ms: float) -> Times:
    undisturbed = [taken for taken, disturbed in found if not disturbed]
    busy = 2 * len(undisturbed) < len(found)
    kept = [taken for taken, _ in found] if busy else undisturbed
    median, p95, p99 = (float(value) for value in np.percentile(np.array(kept) / 1e6, [50, 95, 99]))
    return Times(median, p95, p99, len(kept), len(found) - len(undisturbed), busy, median / audio_ms)


def sound(seconds: float) -> NDArray[np.int16]:
    """Pink noise whose loudness changes four times a second, as that of speech does."""
    length = round(seconds * SAMPLE_RATE_HZ)
    level_db = np.random.default_rng(4).uniform(-30, 0, length // 4000 + 1)[np.arange(length) // 4000]
    return noise.to_int16(noise.colored_noise(length, 1.0, 4) * (2000 * 10 ** (level_db / 20)).astype(np.float32))


@dataclass(frozen=True)
class Streaming:
    """The time of a step, from samples to commands, against the time since the start."""

    minutes: float
    at_s: list[float]  # the bins' middles, and of the steps in each:
    median_ms: list[float]
    p5_ms: list[float]
    p95_ms: list[float]
    early_ms: float  # median around second 10
    late_ms: float  # median in the last minute
    ratio: float  # late over early

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def stream(subject: Subject, minutes: float, report: Report | None = None) -> Streaming:
    """One stream hears so many minutes. Then it is reset, and hears the seconds around second 10 again and again.

    So the ratio compares its last minute with what follows at once, in the same memory: another stream, or another
    moment of the machine, differ by more than what is looked for. report: gets the seconds of audio heard so far.
    """
    config = subject.info.config
    step_s = config.encoder.streaming_step_size * config.features.frame_shift_ms / 1000
    portion = round(step_s * SAMPLE_RATE_HZ)
    a_loop = LOOP_S * SAMPLE_RATE_HZ // portion
    portions = np.split(sound(LOOP_S)[: a_loop * portion], a_loop)
    steps, late_steps = round(minutes * 60 / step_s), round(LATE_S / step_s)
    first, last = (round(at_s / step_s) for at_s in EARLY_S)
    times_ns, early_ns = np.zeros(steps, np.int64), np.zeros((YOUNG, last), np.int64)
    with quiet_core():
        heard_by = subject.recognizer()
        for part in portions[:50]:  # code and weights into the caches of the processor
            heard_by.accept(part)
        for times in (times_ns, *early_ns):
            heard_by.reset()
            heard_by.accept(portions[-1])  # so much that from now on every portion completes a step
            for at in range(len(times)):
                times[at] = _hear(heard_by, portions[at % a_loop])
                if report and times is times_ns and at % 256 == 0:
                    report(round(at * step_s))
    times_ms = times_ns / 1e6
    early, late = float(np.median(early_ns[:, first:])) / 1e6, float(np.median(times_ms[-late_steps:]))
    bins = [(at, times_ms[begin:end]) for at, begin, end in _bins(steps, step_s)]
    quartiles = [[float(value) for value in np.percentile(part, [5, 50, 95])] for _, part in bins]
    return Streaming(
        minutes,
        [at for at, _ in bins],
        [each[1] for each in quartiles],
        [each[0] for each in quartiles],
        [each[2] for each in quartiles],
        early,
        late,
        late / early,
    )


def _hear(heard_by: Recognizer, portion: NDArray[np.int16]) -> int:
    start = time.perf_counter_ns()
    heard_by.accept(portion)
    return time.perf_counter_ns() - start


def _bins(steps: int, step_s: float) -> list[tuple[float, int, int]]:
    """(middle in seconds, first step, step after the last) of bins that grow with the logarithm of time."""
    decades = math.log10(steps)
    edges = np.unique(np.round(np.logspace(0, decades, round(decades * BINS_A_DECADE) + 1)).astype(int))
    edges = np.concatenate([[0], edges])
    return [
        (step_s * math.sqrt((int(begin) + 1) * int(end)), int(begin), int(end))
        for begin, end in zip(edges, edges[1:], strict=False)
    ]


def copy_ms(size_bytes: int) -> float:
    """Milliseconds that numpy takes to copy so many bytes on this core, the best of many: memory that was just used.

    A yardstick, not a proven bound: a copy writes as well as it reads, and a step need only read its weights.
    """
    source = np.ones(max(size_bytes, 1), np.uint8)
    target = np.empty_like(source)
    with quiet_core():
        return min(time_ns(lambda: np.copyto(target, source)) for _ in range(50)) / 1e6
