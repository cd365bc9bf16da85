"""What an earlier model hears of the recordings: which hold their word, and where it ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="aligning is for training, which needs torch")

import kouling  # noqa: E402
from kouling import audio  # noqa: E402
from kouling.measure import stream  # noqa: E402
from kouling.recognizer import MODELS  # noqa: E402
from kouling.train import align  # noqa: E402
from kouling.train.align import Aligner, Weighted, bounded, lateness  # noqa: E402
from kouling.train.data import Clip, Corpus, cut_pieces  # noqa: E402
from kouling.train.loss import LONGEST_S  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = MODELS / "en-base" / "model.safetensors"
SECOND = 16000


def recordings() -> dict[str, tuple[Weighted, float]]:
    """Of each word of an example: a second that holds it, whose bounds tell nothing, and where in it the word ends."""
    samples = audio.read(EXAMPLES / "en-orders.ogg")
    found = {}
    for command in stream.hear(kouling.load("en-commands"), samples):
        start = max(int((command.end_s - 0.7) * SECOND), 0)
        clip = Clip(start, SECOND, 0, SECOND, 1000.0, command.name, f"{command.name}/1.ogg")
        found[command.name] = (Corpus(samples, [clip]), clip, 1.0), command.end_s - start / SECOND
    return found


def test_a_word_is_kept_and_its_end_is_found(cache: Path) -> None:
    known = recordings()
    assert set(known) == {"go", "left", "stop", "yes"}
    words = {}
    for word, ((corpus, whole, _), end_s) in known.items():
        plain = replace(whole, speech_start=int(end_s * SECOND) - 6000, speech_end=int(end_s * SECOND))
        words[word] = [(corpus, whole, 1.0), (corpus, plain, 1.0), (corpus, replace(plain, speech_start=0), 1.0)]
    aligned = Aligner(MODEL, cache).align(words)
    for word, (_, end_s) in known.items():
        (_, clip, _), (_, plain, _), _ = aligned[word]
        assert plain.speech_end / SECOND == pytest.approx(end_s, abs=0.001)
        assert clip.speech_end / SECOND == pytest.approx(end_s + align.SLACK_S, abs=0.001)  # unless the energy knows
        assert clip.speech_start >= clip.speech_end - LONGEST_S * SECOND


def test_what_does_not_hold_its_word_is_left_out(cache: Path) -> None:
    (go, _), (left, _) = recordings()["go"], recordings()["left"]
    quiet = np.random.default_rng(0).integers(-9, 10, SECOND).astype(np.int16)
    nothing = Clip(0, SECOND, 100, 15900, 5.0, "go", "go/2.ogg")
    aligned = Aligner(MODEL, cache).align({"go": [go, left, (Corpus(quiet, [nothing]), nothing, 1.0)], "left": [go]})
    assert [clip.label for _, clip, _ in aligned["go"]] == ["go"]
    assert aligned["left"] == []


def test_words_that_the_model_does_not_know_stay_as_they_are(cache: Path) -> None:
    go, _ = recordings()["go"]
    aligned = Aligner(MODEL, cache).align({"walk": [go], "go": [go], "stop": []})
    assert aligned["walk"] == [go]
    assert aligned["stop"] == []  # a word without a recording is refused later, by its name
    assert list(aligned) == ["walk", "go", "stop"]


def test_pieces_of_speech_that_are_words_after_all_are_left_out(cache: Path) -> None:
    samples = audio.read(EXAMPLES / "en-not-a-command.ogg")
    speech = Corpus(samples, [Clip(0, len(samples), 0, len(samples), 1000.0, "", "talk.ogg")])
    pieces = [(speech, piece) for piece in cut_pieces(speech, speech.clips)]
    words = [(corpus, clip) for (corpus, clip, _), _ in recordings().values()]
    quiet = np.random.default_rng(0).integers(-9, 10, SECOND).astype(np.int16)
    silence = Corpus(quiet, []), Clip(0, SECOND, 0, SECOND, 5.0, "", "quiet.ogg")
    aligner = Aligner(MODEL, cache)
    kept = aligner.without_words([*words, silence, *pieces])
    assert len(pieces) >= 3 and len(kept) >= len(pieces) / 2
    assert all(corpus is speech for corpus, _ in kept)


def test_what_was_heard_is_remembered(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = {word: [clip] for word, (clip, _) in recordings().items()}
    first = Aligner(MODEL, cache).align(words)
    monkeypatch.setattr(Aligner, "_hear", None)
    again = Aligner(MODEL, cache).align(words)
    assert [[clip for _, clip, _ in clips] for clips in again.values()] == [
        [clip for _, clip, _ in clips] for clips in first.values()
    ]


def test_lateness_is_that_of_plain_recordings() -> None:
    def clip(length_s: float) -> Clip:
        return Clip(0, SECOND, 0, round(length_s * SECOND), 1000.0, "go", "go/1.ogg")

    lengths_s = [0.1, 0.4, 0.45, 0.5, 0.55, 0.9, 0.95, 0.97, 0.98, 0.99]  # the word is over at 0.5 s or before
    spikes_s = np.array([0.6, 0.5, 0.55, 0.6, 0.65, 0.6, 0.6, 0.5, 0.4, 0.3], dtype=np.float32)
    assert lateness(spikes_s, [clip(length_s) for length_s in lengths_s]) == pytest.approx(0.1)
    assert lateness(spikes_s[:1], [clip(0.4)]) == pytest.approx(0.2)


def test_energy_is_believed_near_the_models_end() -> None:
    clip = Clip(0, SECOND, 4000, 9600, 1000.0, "go", "go/1.ogg")
    assert bounded(clip, 0.65) == clip  # 0.6 s, by its energy
    assert bounded(clip, 0.45).speech_end == round(0.55 * SECOND)
    assert bounded(clip, 0.85).speech_end == round(0.75 * SECOND)
    whole = Clip(0, SECOND, 0, SECOND, 1000.0, "go", "go/1.ogg")
    assert bounded(whole, 0.9).speech_start == round(0.1 * SECOND)
    for end_s in (-1.0, 0.0, 0.01, 5.0):
        odd = bounded(clip, end_s)
        assert 0 <= odd.speech_start < odd.speech_end <= SECOND
