"""What must not be taken for a phrase."""

from __future__ import annotations

import random
import shutil

import pytest

pytest.importorskip("torch")

from kouling.teach import neighbours  # noqa: E402
from kouling.teach.phones import apart  # noqa: E402

spoken = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def neighbours_of(phrase: str, *others: str) -> list[str]:
    return neighbours.must_not_fire(phrase, (phrase, *others), "en", random.Random(0), 30)


@spoken
def test_of_a_short_phrase_the_nearest_words_are_others() -> None:
    near = neighbours_of("lights on", "lights off")
    assert "lights" in near and "on" in near and "likes on" in near
    assert "lights off" not in near and any(text.startswith("[[") for text in near)


@spoken
@pytest.mark.parametrize("phrase", ["open the window", "start the washing machine"])
def test_of_a_long_phrase_what_differs_by_an_accent_is_no_other(phrase: str) -> None:
    near = neighbours_of(phrase)
    plain = [text for text in near if "[[" not in text]
    own, *heard = neighbours.phones_of([phrase, *plain], "en")
    assert min(apart(own, each) for each in heard) > neighbours.least(phrase, own) > 1
    whole = [text for text in plain if len(text.split()) == len(phrase.split())]
    assert len(whole) > 5 and phrase.rpartition(" ")[0] in plain  # a word changed, and the phrase cut short


@spoken
def test_more_of_a_longer_phrase_is_changed_into_something_else() -> None:
    rng = random.Random(0)
    for phrase, changes in (("lights on", 2), ("start the washing machine", 5)):
        sounds = neighbours.sounds_of(phrase)
        own, *heard = neighbours.phones_of([phrase, *neighbours.mutated(sounds, rng, 5, changes)], "en")
        assert len(heard) == 5 and min(apart(own, each) for each in heard) > 0.4 * changes
    assert not neighbours.mutated(["t", "_", "i:"], rng, 5, 3)  # too few to change


def test_longer_phrases_have_to_differ_in_more_and_words_do_not() -> None:
    assert neighbours.least("computer", "k ə m p j uː t ə ɹ".split()) == neighbours.ACCENT
    short, long = (neighbours.least(text, text.replace(" ", "")) for text in ("fan on", "smart mirror"))
    assert neighbours.ACCENT == short < long
