"""What the decoder must know of a model: what its probabilities are worth, and how late its words come.

Fitted on validation recordings, as they are and in noise, with the runtime that ships. A calibrated confidence of 0.9
then means that about nine in ten such events are right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from kouling.audio import SAMPLE_RATE_HZ
from kouling.measure.accuracy import SILENCE, UNKNOWN, disturbance
from kouling.measure.stream import hear
from kouling.recognizer import Recognizer, Runner
from kouling.train.data import Clip, Corpus
from kouling.train.scenes import SceneMaker

SNRS_DB = (None, 20.0, 10.0)  # the conditions, None: as recorded
PRIMING_LEVELS = (0.0, 1.0, 2.0, 3.0)  # tried, in PRIMING_SNRS_DB, on so many clips each
PRIMING_SNRS_DB = (None, 10.0)
PRIMING_CLIPS = 600
LIKELY = 0.5  # probability from which an event counts there, as nothing is calibrated yet
CLIPS_PER_CONDITION = 1500
FALSE_ALARMS_PER_HOUR = 4.0  # wanted on held-out running speech, at the default threshold
MAX_LOSS = 0.002  # of what is right on clips, at most, for fewer false alarms
WEIGHTS = {"words": 0.8, UNKNOWN: 0.1, SILENCE: 0.1}  # of the clips, however many there are of each
ISOLATION_S = 1.0  # an unknown word this shortly before it, and a word is not meant as a command
HESITATION_S = 1.2  # nor with one this shortly behind it, unless it is sure
LOWEST = 0.02  # probability from which an event is looked at


@dataclass(frozen=True)
class Event:
    """Something heard in a validation clip."""

    unit: str
    probability: float
    right: bool
    lag_start_s: float  # from the first sound of the clip's word to the spike
    lag_end_s: float  # from its last sound


class _Settings:
    """The runner, with another decoder than its own."""

    def __init__(self, runner: Runner, decoder: dict[str, Any]) -> None:
        self.initial_state, self.step = runner.initial_state, runner.step
        self.info = replace(runner.info, decoder=decoder)


def calibrate(runner: Runner, scenes: SceneMaker, report: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The decoder settings for `runner`'s model, to go into its `ModelInfo.decoder`.

    Raises: ValueError where the recipe has no validation clips of words.
    """
    if not any(target > 1 for *_, target in scenes.valid):
        raise ValueError("no validation clips of words: calibration needs a source with part = 'valid' or 'both'")
    # Bare probabilities, at the time of the spike.
    zero = {unit: 0.0 for unit in runner.info.units if not unit.startswith("<")}
    bare = {"threshold": LOWEST, "isolation_s": ISOLATION_S, "hesitation_s": HESITATION_S}
    bare["priming_level"] = choose_priming(runner, bare, scenes, report)
    recognizer = Recognizer(_Settings(runner, {**bare, "onset_s": zero, "offset_s": zero}))
    rng = np.random.default_rng(0)
    clean: list[Event] = []
    events: list[Event] = []
    plain: list[tuple[str, NDArray[np.int16]]] = []  # the clips as recorded, and their words
    for snr_db in SNRS_DB:
        disturb = disturbance(snr_db=snr_db)
        for index in rng.permutation(len(scenes.valid))[:CLIPS_PER_CONDITION]:
            corpus, clip, target = scenes.valid[index]
            label = runner.info.units[target] if target > 1 else ""
            heard = listen(recognizer, disturb(corpus.of(clip), clip.name), clip, label)
            events += heard
            if snr_db is None:
                clean += [event for event in heard if event.right and event.probability > 0.5]
                plain.append((label or (UNKNOWN if target else SILENCE), corpus.of(clip)))
        report(f"{'as recorded' if snr_db is None else f'{snr_db:.0f} dB SNR'}: {len(events)} events")
    right = np.array([event.right for event in events], dtype=bool)
    slope, bias = fit_logistic(np.array([event.probability for event in events]), right)
    fitted = {"confidence_slope": round(slope, 4), "confidence_bias": round(bias, 4)}
    # Who hesitates depends on the confidence, so what the threshold is chosen from is heard as it will be.
    recognizer = Recognizer(_Settings(runner, {**bare, **fitted}))
    alarms, hours = running_speech(recognizer, scenes.valid_speech)
    judged = [(label, [(e.name, e.confidence) for e in hear(recognizer, samples)]) for label, samples in plain]
    threshold = choose_threshold(judged, alarms, hours)
    report(f"slope {slope:.2f}, bias {bias:.2f}; threshold {threshold:.2f}; {hours:.2f} h of running speech")
    units = sorted({event.unit for event in clean})

    def middle(unit: str, values: Callable[[Event], float]) -> float:
        return round(float(np.median([values(event) for event in clean if event.unit == unit])), 3)

    return {
        **bare,
        **fitted,
        "threshold": threshold,
        "onset_s": {unit: middle(unit, lambda event: event.lag_start_s) for unit in units},
        "offset_s": {unit: middle(unit, lambda event: event.lag_end_s) for unit in units},
    }


def choose_priming(
    runner: Runner, settings: dict[str, Any], scenes: SceneMaker, report: Callable[[str], None]
) -> float:
    """After what a stream's first words are heard best: digital silence, or a hiss. Models differ in it by points,
    and it hangs on how recordings begin that they learnt from. settings: of the decoder."""
    rng = np.random.default_rng(1)
    chosen = [scenes.valid[index] for index in rng.permutation(len(scenes.valid))[:PRIMING_CLIPS]]
    shares = {}
    for level in PRIMING_LEVELS:
        recognizer = Recognizer(_Settings(runner, {**settings, "priming_level": level}))
        found: dict[str, list[bool]] = {}
        for snr_db in PRIMING_SNRS_DB:
            disturb = disturbance(snr_db=snr_db)
            for corpus, clip, target in chosen:
                kind = "words" if target > 1 else UNKNOWN if target else SILENCE
                said = runner.info.units[target] if target > 1 else ""
                heard = hear(recognizer, disturb(corpus.of(clip), clip.name))
                right = is_right(said, [(event.name, event.confidence) for event in heard], LIKELY)
                found.setdefault(kind, []).append(right)
        shares[level] = weighted(found)
        report(f"begun after {'a hiss' if level else 'silence'} of level {level:g}: {100 * shares[level]:.2f} % right")
    return max(shares, key=lambda level: (shares[level], -level))


def is_right(word: str, heard: Sequence[tuple[str, float]], threshold: float) -> bool:
    """word: that was said, "" for none of the model's. heard: units and confidences."""
    unit, confidence = max(heard, key=lambda event: event[1], default=("", 0.0))
    return (unit if confidence >= threshold else "") == word


def weighted(found: dict[str, list[bool]]) -> float:
    """The share that is right, of kinds as in WEIGHTS."""
    return sum(WEIGHTS[kind] * float(np.mean(each)) for kind, each in found.items())


def listen(recognizer: Recognizer, samples: NDArray[np.int16], clip: Clip, label: str) -> list[Event]:
    """The events of one clip; right are those of its own word, the first time."""
    events: list[Event] = []
    for command in hear(recognizer, samples):
        right = command.name == label and not any(event.right for event in events)
        start_s, end_s = clip.speech_start / SAMPLE_RATE_HZ, clip.speech_end / SAMPLE_RATE_HZ
        lags = command.end_s - start_s, command.end_s - end_s
        events.append(Event(command.name, command.confidence, right, *lags))
    return events


def running_speech(recognizer: Recognizer, clips: list[tuple[Corpus, Clip]]) -> tuple[NDArray[np.float64], float]:
    """Confidences of all events in recordings that hold no commands, and hours listened to."""
    found, seconds = [], 0.0
    for corpus, clip in clips:
        found += [command.confidence for command in hear(recognizer, corpus.of(clip))]
        seconds += clip.length / SAMPLE_RATE_HZ
    return np.array(found), seconds / 3600


def logit(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = np.clip(probabilities, 1e-6, 1 - 1e-6)
    odds: NDArray[np.float64] = np.log(bounded / (1 - bounded))
    return odds


def fit_logistic(probabilities: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and bias of P(right) = sigmoid(slope * logit(p) + bias), by maximum likelihood (Platt 1999)."""
    odds = logit(probabilities)  # bounded as in DecoderConfig.confidence
    # Platt's targets: a class that never occurs must not drive the slope to infinity.
    positive, negative = right.sum(), (~right).sum()
    targets = np.where(right, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def negative_likelihood(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = parameters[0] * odds + parameters[1]
        miss = 1 / (1 + np.exp(-z)) - targets
        # A weak pull to "as it says": events that are all equally sure fix only one of the two parameters.
        pull = parameters - np.array([1.0, 0.0])
        value = float(np.sum(np.logaddexp(0, z) - targets * z) + 0.05 * np.sum(pull**2))
        return value, np.array([np.sum(miss * odds), np.sum(miss)]) + 0.1 * pull

    slope, bias = minimize(negative_likelihood, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    return max(float(slope), 0.05), float(bias)


def choose_threshold(
    decisions: Sequence[tuple[str, Sequence[tuple[str, float]]]], alarms: NDArray[np.float64], hours: float
) -> float:
    """Of the thresholds, 0.05 to 0.95, that cost at most MAX_LOSS on single clips, the one with the fewest alarms in
    running speech, where FALSE_ALARMS_PER_HOUR are as good as none; then the best for clips.

    Words, unknown words and noise have the weights that they have in the usual tests, about a tenth each for the latter
    two: else it would hang on how many validation clips there are of each.

    decisions: for each clip its word, UNKNOWN or SILENCE, and what was heard: (unit, confidence).
    """
    candidates = [round(0.05 + 0.05 * step, 2) for step in range(19)]

    def share_right(threshold: float) -> float:
        found: dict[str, list[bool]] = {}
        for label, heard in decisions:
            nothing = label in (UNKNOWN, SILENCE)
            right = is_right("" if nothing else label, heard, threshold)
            found.setdefault(label if nothing else "words", []).append(right)
        return weighted(found)

    accuracy = {t: share_right(t) for t in candidates}
    affordable = [t for t in candidates if accuracy[t] >= max(accuracy.values()) - MAX_LOSS]
    allowed = FALSE_ALARMS_PER_HOUR * hours
    return min(affordable, key=lambda t: (max((alarms >= t).sum(), allowed), -accuracy[t]))
