"""Make what en-speech's recipes and `kouling teach` know of running English speech: who says what, and when.

    pip install pocketsphinx==5.1.1
    python recipes/en-speech/make.py heard DATA HEARD.jsonl     (an hour; goes on where it was stopped)
    python recipes/en-speech/make.py files DATA HEARD.jsonl

The first listens to LibriSpeech and Common Voice with PocketSphinx; the second writes speech-*.tsv (what is said where),
lexicon.txt (words in pieces of one or two phones) and unit names here, and background-words.tsv for the background pack.
The files that are here were made by an earlier form of this, which cut long runs elsewhere, of all of LibriSpeech and of the
413 recordings of Common Voice that time allowed.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kouling import audio
from kouling.measure.recordings import labelled
from kouling.train.data import name_hash

HERE = Path(__file__).parent
SOURCES = ("speech-librispeech", "speech-commonvoice")
HELD_OUT = 30  # percent of recordings, by hash, that no model may know: false alarms are counted in them
PACKED = 75  # those up to here are in the background pack
UNITS = 300  # phones, and pairs of phones that are common
GSC = "yes no up down left right go stop zero one two three four five six seven eight nine bed bird cat dog happy house"
GSC += " marvin off on sheila tree wow"
DIGITS = "zero one two three four five six seven eight nine".split()
CAPITALS = "Close Open Print Process Project Signal Speaker Speech".split()  # labels of DSPSpeech-20


def listen(data: Path, output: Path) -> None:
    """One line of JSON for each recording: its words with their times in units of 10 ms."""
    from pocketsphinx import Decoder

    known = {json.loads(line)["name"] for line in output.open()} if output.exists() else set()
    decoder = Decoder(samprate=16000, loglevel="FATAL", beam=1e-60, wbeam=1e-40, maxhmmpf=20000)
    with output.open("a") as out:
        for source in SOURCES:
            for _, name, file in labelled(data / f"{source}.tar"):
                if f"{source}/{name}" in known:
                    continue
                samples = audio.read(file, name).astype(np.float32)
                samples *= min(20000 / max(float(np.abs(samples).max()), 1.0), 20.0)
                decoder.start_utt()
                decoder.process_raw(samples.astype(np.int16).tobytes(), full_utt=True)
                decoder.end_utt()
                heard = decoder.seg() if decoder.hyp() else []
                words = [(word.word, word.start_frame, word.end_frame) for word in heard]
                row = {"name": f"{source}/{name}", "s": len(samples) / audio.SAMPLE_RATE_HZ, "segs": words}
                print(json.dumps(row), file=out, flush=True)


def dictionary() -> dict[str, list[str]]:
    import pocketsphinx

    path = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
    return {word: phones for word, *phones in map(str.split, path.read_text(encoding="utf-8").splitlines())}


def stretches(row: dict, rng: random.Random, said: dict[str, list[str]]) -> Iterator[tuple[float, float, list[str]]]:
    """Runs of known words without a pause, of one to two and a half seconds where there is as much."""
    run: list[tuple[str, int, int]] = []
    most_s = rng.uniform(1.0, 2.6)
    for word, start, end, *_ in [*row["segs"], ("<end>", 0, 0)]:
        known = word in said and word[0] not in "<["
        if run and (not known or (end - run[0][1]) / 100 > most_s):
            first_s, last_s = run[0][1] / 100, (run[-1][2] + 1) / 100
            phones = sum(len(said[each]) for each, *_ in run)
            if 0.35 <= last_s - first_s <= 2.9 and phones >= 3 and phones / (last_s - first_s) < 22:
                yield max(first_s - 0.02, 0.0), min(last_s + 0.03, row["s"]), [each for each, *_ in run]
            run, most_s = [], rng.uniform(1.0, 2.6)
        if known:
            run.append((word, start, end))


def pieces(words: Counter[str], said: dict[str, list[str]]) -> dict[str, list[str]]:
    """Each word in units: its phones, the commonest pairs of them joined (Sennrich et al. 2016), none of more than two."""
    spelled = {word: [phone.lower() for phone in said[word]] for word in words}
    units = {phone for phones in spelled.values() for phone in phones}
    single = set(units)
    while len(units) < UNITS:
        count: Counter[tuple[str, str]] = Counter()
        for word, phones in spelled.items():
            for pair in zip(phones, phones[1:], strict=False):
                if set(pair) <= single:
                    count[pair] += words[word] ** 0.6
        (pair, _), *_ = count.most_common(1)
        units.add("".join(pair))
        for word, phones in spelled.items():
            joined: list[str] = []
            for phone in phones:
                both = bool(joined) and (joined[-1], phone) == pair
                joined[-1:] = ["".join(pair)] if both else [*joined[-1:], phone]
            spelled[word] = joined
    return spelled


def files(data: Path, heard: Path) -> None:
    said = dictionary()
    rows = [json.loads(line) for line in heard.open()]
    rng = random.Random(1)
    words = Counter(dict.fromkeys(GSC.split(), 60))
    comment = "# What PocketSphinx 5.1 with its American English model heard in these recordings, and when; not checked by anyone"
    for source in SOURCES:
        lines = [comment]
        for row in rows:
            name = row["name"].removeprefix(f"{source}/")
            if name == row["name"] or name_hash(name) % 100 < HELD_OUT:
                continue
            for start_s, end_s, run in stretches(row, rng, said):
                words.update(run)
                lines.append(f"{name}\t{start_s:.2f}\t{end_s:.2f}\t{' '.join(run)}")
        (HERE / f"{source}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    spoken = (HERE / "words.txt").read_text(encoding="utf-8").splitlines()
    words.update(word for text in spoken if not text.startswith("#") for word in text.split())
    spelled = pieces(words, said)
    labels = {str(number): word for number, word in enumerate(DIGITS)} | {word: word.lower() for word in CAPITALS}
    spelled |= {label: spelled[word] for label, word in labels.items() if word in spelled}
    lines = ["# Words in pieces of their pronunciation (CMU Pronouncing Dictionary, as PocketSphinx has it, BSD)"]
    lines += [f"{word}\t{' '.join(units)}" for word, units in sorted(spelled.items())]
    (HERE / "lexicon.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("units =", json.dumps(sorted({unit for units in spelled.values() for unit in units})))
    background(data, {row["name"]: row["segs"] for row in rows}, comment)


def background(data: Path, heard: dict[str, list], comment: str) -> None:
    """What the speech of the pack says, word by word; its names are those of recipes/background.py."""
    lines = [comment.replace("these recordings", "the speech of background.tar")]
    for source in SOURCES:
        for number, (_, name, _) in enumerate(labelled(data / f"{source}.tar")):
            if HELD_OUT <= name_hash(name) % 100 < PACKED:
                for word, start, end, *_ in heard.get(f"{source}/{name}", []):
                    if word[0] not in "<[":
                        place = f"speech/{source.partition('-')[2]}-{number:05d}.ogg"
                        plain = re.sub(r"\(\d+\)$", "", word)
                        lines.append(f"{place}\t{start / 100:.2f}\t{(end + 1) / 100:.2f}\t{plain}")
    path = HERE.parents[1] / "src/kouling/teach/background-words.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    {"heard": listen, "files": files}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
