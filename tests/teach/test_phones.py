"""How words sound, and which are near."""

import shutil

import pytest

from kouling.teach import phones

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def test_every_phone_is_nearest_to_itself_and_distances_are_symmetric() -> None:
    for one in phones.PHONES:
        assert phones.distance(one, one) == 0
        for other in phones.PHONES:
            assert phones.distance(one, other) == phones.distance(other, one)
            assert one == other or 0.1 < phones.distance(one, other) <= 1


def test_voicing_alone_is_nearer_than_place_and_manner() -> None:
    assert phones.distance("p", "b") < phones.distance("p", "t") < phones.distance("p", "z")
    assert phones.distance("iː", "ɪ") < phones.distance("iː", "ɑː")
    assert phones.distance("m", "iː") == 1


def test_apart_counts_changes_and_what_was_put_in() -> None:
    assert phones.apart("s p".split(), "s p".split()) == 0
    assert phones.apart("s p".split(), "s b".split()) == phones.distance("p", "b")
    assert phones.apart("s".split(), "s t".split()) == 0.8
    assert phones.apart([], "s t".split()) == 1.6


@needs_espeak
def test_words_are_spelled_in_the_inventory() -> None:
    jarvis, mirror = phones.pronounce(["jarvis", "smart mirror"])
    assert jarvis == ("dʒ", "ɑː", "ɹ", "v", "ɪ", "s")
    assert set(mirror) <= set(phones.PHONES) and len(mirror) == 10


@needs_espeak
def test_texts_of_several_clauses_keep_their_places() -> None:
    several = phones.pronounce(["hello, you. and you", "stop"])
    assert several[1] == ("s", "t", "ɑː", "p") and len(several[0]) > 8


@needs_espeak
def test_mandarin_keeps_its_tones() -> None:
    on, off = phones.pronounce(["开灯", "关灯"], "cmn-latn-pinyin")
    assert on[-3:] == off[-3:] and on != off
    assert any(phone.endswith("5") for phone in on)


def test_without_espeak_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="apt-get install espeak-ng"):
        phones.pronounce(["stop"])
    if shutil.which("espeak-ng"):
        with pytest.raises(ValueError, match="nothing to say"):
            phones.pronounce([" "])


@needs_espeak
def test_a_text_with_nothing_to_say_and_an_unknown_voice_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to say"):
        phones.pronounce(["stop", " "])
    with pytest.raises(ValueError, match="does not speak 'xx-none'"):
        phones.pronounce(["stop"], "xx-none")
