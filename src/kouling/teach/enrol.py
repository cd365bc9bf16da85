"""`kouling enrol`: a command from a few recordings, without training; the encoder stays as it is.

What the last block says during each recording becomes a template (`templates.py`), in coordinates in which running
speech varies alike in every direction, so that what tells words apart counts, and not what all speech shares. The
threshold comes from speech in which the command is not said. Neither the spelling nor the language matters.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling import checkpoint, templates
from kouling.audio import SAMPLE_RATE_HZ
from kouling.deploy.engine import FILE, Engine, EngineRecognizer
from kouling.measure.noise import speech_bounds
from kouling.recognizer import own_commands
from kouling.teach import background
from kouling.teach.recordings import read_checked
from kouling.templates import TAIL_S, Floats, Templates

FEWEST, MOST = 3, 8  # recordings
SPEECH_MINUTES = 40.0  # that thresholds are chosen on
BEFORE_S, AFTER_S = 0.5, 0.6  # of silence around a recording
LEAST_VARIANCE = 0.01  # of the largest one: directions in which speech hardly varies are noise
LONGEST_S = 3.0  # of a command's sound
PEAKS = 40  # likenesses of other speech by which the rate of false alarms is told
APART_S = 1.0  # between two of them
LEAST_LIKE = 0.1  # of them
HIGHEST = 0.99
ODD_PER_HOUR = 30.0  # how often other speech is as like a command as a recording that says something else
VOICE_SHARE = 0.85  # of the likeness of one's own recordings to one another, that another voice seldom reaches

Samples = NDArray[np.int16]


@dataclass(frozen=True)
class Speech:
    """What an encoder says during other speech."""

    mean: Floats  # (width,)
    whiten: Floats  # (width, width)
    sounds: Floats  # (B, N, width), silence behind the shorter ones
    frames: NDArray[np.int64]  # of each

    def hours(self, frame_s: float) -> float:
        return float(self.frames.sum()) * frame_s / 3600


@dataclass(frozen=True)
class Enrolled:
    """What came of it."""

    name: str
    templates: Templates
    threshold: float
    heard: int  # of the recordings, each by the templates of the others
    alarms: int  # in the speech that comes along, at this threshold
    hours: float  # of it
    problems: tuple[str, ...]  # with recordings that were left out

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "model": self.templates.model,
            "recordings": len(self.templates.recordings),
            "threshold": self.threshold,
            "heard_by_the_others": self.heard,
            "false_alarms": self.alarms,
            "hours": round(self.hours, 4),
            "left_out": list(self.problems),
        }


class Listener:
    """An encoder in the engine, listened to behind its last block."""

    def __init__(self, engine: Engine) -> None:
        self.info = engine.info
        self.frame_s = self.info.config.encoder_frame_s
        self._recognizer = EngineRecognizer(self.info, own_commands(self.info), engine.stream(FILE))

    def hear(self, samples: Samples) -> Floats:
        """(N, width), from the first sample to the last."""
        hidden = self._recognizer.hidden(samples)
        return hidden[: int(len(samples) / SAMPLE_RATE_HZ / self.frame_s)]

    def said(self, samples: Samples) -> Floats:
        """(rows, width): of the frames in which a recording's sound is heard."""
        before, after = (np.zeros(round(each * SAMPLE_RATE_HZ), dtype=np.int16) for each in (BEFORE_S, AFTER_S))
        first, last = speech_bounds(samples)
        heard = self.hear(np.concatenate([before, samples, after]))
        start = int((first / SAMPLE_RATE_HZ + BEFORE_S) / self.frame_s) + 1
        end = int((last / SAMPLE_RATE_HZ + BEFORE_S) / self.frame_s) + round(TAIL_S / self.frame_s)
        return heard[start : max(end, start + 2)]


def enrol(
    engine: Engine,
    name: str,
    files: Sequence[Path],
    per_hour: float,
    cache: Path,
    only_this_voice: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Enrolled:
    """The templates of a command, and the threshold for so many false alarms an hour.

    only_this_voice: a threshold that one's own recordings pass, and the same word from others seldom does.
    Raises: ValueError, one line, for too few or too many recordings, and where too few can be used, with what is wrong
    with the first.
    """
    if not FEWEST <= len(files) <= MOST:
        raise ValueError(f"{len(files)} recordings; allowed: {FEWEST} to {MOST}")
    good, problems = read_checked(files, LONGEST_S)
    _enough(len(good), files, problems)
    listener = Listener(engine)
    speech = other_speech(listener, cache, report)
    said = [listener.said(samples) for _, samples in good]
    made = [rows_of(each, speech) for each in said]
    found, hours = peaks(made, speech, listener.frame_s), speech.hours(listener.frame_s)
    level = threshold_for(found, hours, per_hour)
    alike = [likeness_to(said[i], made[:i] + made[i + 1 :]) for i in range(len(made))]
    # One that is no more like the others than much other speech is says something else, where these are alike.
    often = threshold_for(found, hours, ODD_PER_HOUR)
    odd = [i for i, each in enumerate(alike) if each < often and np.median(alike) >= level]
    problems += [f"{good[i][0]}: sounds unlike the other recordings" for i in odd]
    kept = [i for i in range(len(made)) if i not in odd]
    _enough(len(kept), files, problems)
    made, alike = [made[i] for i in kept], [alike[i] for i in kept]
    if odd:
        found = peaks(made, speech, listener.frame_s)
        level = threshold_for(found, hours, per_hour)
    if only_this_voice:
        level = max(level, VOICE_SHARE * float(np.median(alike)))
    threshold = round(min(level, HIGHEST), 3)
    alarms = int((found >= threshold).sum())
    heard = sum(each >= threshold for each in alike)
    own = Templates(listener.info.name, templates.encoder_key(listener.info), tuple(made))
    return Enrolled(name, own, threshold, heard, alarms, hours, tuple(problems))


def rows_of(said: Floats, speech: Speech) -> Floats:
    """(rows, width) -> (rows, width + 1), a template: of what is said now, the product with a row is how alike it is in
    whitened coordinates, about 1 where it is the same."""
    alike = (said - speech.mean) @ speech.whiten @ speech.whiten.T / said.shape[1]
    rows: Floats = np.concatenate([alike, -(alike @ speech.mean)[:, None]], axis=1)
    return rows.astype(np.float16).astype(np.float32)  # as it is stored


def likeness_to(said: Floats, made: Sequence[Floats]) -> float:
    padded = np.concatenate([said, said[-1:].repeat(templates.LATELY, axis=0)])
    return float(templates.likeness_of(padded[None], made).max())


def peaks(made: Sequence[Floats], speech: Speech, frame_s: float) -> NDArray[np.float64]:
    """The likenesses at which other speech is likest, no two within APART_S of one another; the largest first."""
    values = templates.likeness_of(speech.sounds, made).astype(np.float64)
    values[np.arange(values.shape[1]) >= speech.frames[:, None]] = -1.0
    apart = round(APART_S / frame_s)
    found: list[float] = []
    for row in values:
        while row.max() > LEAST_LIKE:
            at = int(row.argmax())
            found.append(row[at])
            row[max(at - apart, 0) : at + apart + 1] = -1.0
    return np.sort(np.array(found))[::-1]


def threshold_for(found: NDArray[np.float64], hours: float, per_hour: float) -> float:
    """At which a command is expected to be taken for heard so often in other speech. The largest likenesses have a tail
    that is exponential; the very largest of them may be the word itself, which people say."""
    if len(found) <= PEAKS:
        return 0.5
    level = found[PEAKS]
    mean = float((found[:PEAKS] - level).mean())
    return float(level + mean * np.log(PEAKS / (per_hour * hours)))


def other_speech(listener: Listener, cache: Path, report: Callable[[str], None]) -> Speech:
    """Running speech that comes with kouling, as the encoder says it; kept in `cache`, since it takes some seconds."""
    kept = cache / f"enrol-{templates.encoder_key(listener.info)}.npz"
    try:
        with np.load(kept) as file:
            return Speech(*(file[key].astype(kind) for key, kind in zip(_KEPT, _KINDS, strict=True)))
    except (OSError, KeyError, ValueError):
        pass
    report("hearing other speech with this model, once")
    heard: list[Floats] = []
    left = SPEECH_MINUTES * 60
    for samples in background.speech():
        heard.append(listener.hear(samples))
        left -= len(samples) / SAMPLE_RATE_HZ
        if left <= 0:
            break
    frames = np.array([len(each) for each in heard])
    every = np.concatenate(heard)
    mean = every.mean(axis=0)
    variance, directions = np.linalg.eigh(np.cov((every - mean).T))
    whiten = directions / np.sqrt(np.maximum(variance, 0) + LEAST_VARIANCE * variance[-1])
    sounds = np.zeros((len(heard), int(frames.max()), every.shape[1]), dtype=np.float32)
    for row, each in zip(sounds, heard, strict=True):
        row[: len(each)] = each
    made = Speech(mean, whiten.astype(np.float32), sounds, frames)
    cache.mkdir(parents=True, exist_ok=True)
    content = BytesIO()
    np.savez(content, mean=made.mean, whiten=made.whiten, sounds=made.sounds.astype(np.float16), frames=frames)
    checkpoint.write_whole(kept, content.getvalue())
    return made


_KEPT, _KINDS = ("mean", "whiten", "sounds", "frames"), (np.float32, np.float32, np.float32, np.int64)


def _enough(usable: int, files: Sequence[Path], problems: Sequence[str]) -> None:
    if usable < FEWEST:
        raise ValueError(f"{usable} of {len(files)} recordings can be used; needed: {FEWEST}; {problems[0]}")


def write(path: Path, enrolled: Enrolled, check: Callable[[dict[str, Any]], object]) -> None:
    """Put the command into the set `path`, which is made where there is none, all else as it stands.

    check: raises where the set as it would be written cannot be used; nothing is written then.
    Raises: ValueError where it is no TOML, and what `check` raises; OSError where it cannot be written."""
    import tomlkit

    document: Any = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    entries = document.setdefault("command", tomlkit.aot())
    entry = next((each for each in entries if each.get("name") == enrolled.name), None)
    if entry is None:
        entry = tomlkit.table()
        entry["name"] = enrolled.name
        entries.append(entry)
        entry = entries[-1]
    entry["threshold"] = enrolled.threshold
    table = tomlkit.inline_table()
    table.update({key: value for key, value in enrolled.templates.to_table().items() if key != "recordings"})
    texts = tomlkit.array()
    for text in enrolled.templates.to_table()["recordings"]:
        texts.append(text)
    table["recordings"] = texts.multiline(True)
    entry["enrolled"] = table
    text = tomlkit.dumps(document)
    check(tomllib.loads(text))
    checkpoint.write_whole(path, text.encode())
