"""How well enrolled commands are heard: five recordings of each, of other people and of the same voice.

    kouling train recipes/en-commands-large/recipe.toml --data DATA --validation VALIDATION
    python recipes/own-words/enrol.py DATA VALIDATION others     (a minute or two)
    python recipes/own-words/enrol.py DATA VALIDATION voice      (ten minutes)

Other people: words of wakewords.tar, whose recordings are of more than fifty people; five drawn of each, three times;
heard in the rest. The same voice: Mandarin and English words of dsp20-valid.tar, five of the 20 recordings of each
speaker; heard in the other 15, and in those of the other two. False alarms: in speech that nothing was trained on.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kouling import audio, recognizer
from kouling.cli.options import default_cache
from kouling.commands import CommandSet, CommandSpec
from kouling.deploy.engine import Engine
from kouling.measure.detection import listen
from kouling.measure.recordings import labelled
from kouling.measure.stream import hear
from kouling.teach import enrol

RECORDINGS = 5
DRAWS = 3
PER_HOUR = 1.0  # false alarms that thresholds are chosen for
Samples = NDArray[np.int16]


def enrolled(
    engine: Engine, recordings: Sequence[Samples], only_this_voice: bool = False
) -> tuple[CommandSet, enrol.Enrolled]:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.wav" for number in range(len(recordings))]
        for file, samples in zip(files, recordings, strict=True):
            audio.write(file, samples)
        made = enrol.enrol(engine, "it", files, PER_HOUR, default_cache(), only_this_voice)
    return CommandSet((CommandSpec("it", (), (), made.threshold, enrolled=made.templates),)), made


def share_heard(engine: Engine, command_set: CommandSet, recordings: Sequence[Samples]) -> float:
    listener = engine.recognizer(command_set)
    return float(np.mean([bool(hear(listener, samples)) for samples in recordings]))


def by_label(tar: Path) -> dict[str, dict[str, list[Samples]]]:
    """label -> speaker, as far as names tell -> recordings."""
    found: dict[str, dict[str, list[Samples]]] = defaultdict(lambda: defaultdict(list))
    for label, name, file in labelled(tar):
        found[label][name.rpartition("/")[2].partition("-")[0]].append(audio.read(file, name))
    return found


def others(engine: Engine, data: Path, speech: Path) -> None:
    recalls = []
    for label, speakers in by_label(data / "wakewords.tar").items():
        recordings = [samples for each in speakers.values() for samples in each]
        for seed in range(DRAWS):
            drawn = random.Random(seed).sample(range(len(recordings)), RECORDINGS)
            command_set, made = enrolled(engine, [recordings[number] for number in drawn])
            rest = [samples for number, samples in enumerate(recordings) if number not in drawn]
            running = listen(engine.recognizer(command_set), speech, [])
            hours = sum(heard.seconds for heard in running) / 3600
            alarms = sum(len(heard.events) for heard in running)
            recalls.append(share_heard(engine, command_set, rest))
            print(
                f"{label:14} draw {seed}: {100 * recalls[-1]:.1f} % of {len(rest)} recordings, "
                f"{alarms} false alarms in {hours:.2f} h (threshold {made.threshold}, {len(made.problems)} left out)",
                flush=True,
            )
    print(f"other people: mean {100 * np.mean(recalls):.1f} %, worst {100 * min(recalls):.1f} %")


def same_voice(engine: Engine, data: Path) -> None:
    shares = defaultdict(list)
    for speakers in by_label(data / "dsp20-valid.tar").values():
        for speaker, recordings in speakers.items():
            drawn = random.Random(0).sample(range(len(recordings)), RECORDINGS)
            rest = [samples for number, samples in enumerate(recordings) if number not in drawn]
            strangers = [samples for other, each in speakers.items() if other != speaker for samples in each]
            for only in (False, True):
                command_set, _ = enrolled(engine, [recordings[number] for number in drawn], only)
                shares[only, "own"].append(share_heard(engine, command_set, rest))
                shares[only, "others'"].append(share_heard(engine, command_set, strangers))
    for (only, whose), each in sorted(shares.items()):
        way = "--only-this-voice" if only else "any voice"
        print(f"{way:18} {whose:8} {100 * np.mean(each):.1f} % (mean of {len(each)}, worst {100 * min(each):.0f} %)")


if __name__ == "__main__":
    data, validation = map(Path, sys.argv[1:3])
    chosen = Engine(recognizer.find_model(recognizer.SPEECH_MODEL))
    if sys.argv[3] == "others":
        others(chosen, data, validation / "speech")
    else:
        same_voice(chosen, data)
