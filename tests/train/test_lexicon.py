"""Labels spelled in several units."""

from pathlib import Path

import pytest

from kouling.train.lexicon import Lexicon

UNITS = ("<blank>", "<unk>", "lights", "on", "smart mirror")


def written(folder: Path, text: str) -> Path:
    path = folder / "lexicon.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_every_unit_is_itself() -> None:
    lexicon = Lexicon(UNITS)
    assert lexicon.sayings == [(), (1,), (2,), (3,), (4,)]
    assert lexicon.labels == {"lights": 2, "on": 3, "smart mirror": 4}


def test_a_label_may_be_several_units_or_another_name_of_one(tmp_path: Path) -> None:
    path = written(tmp_path, "# comment\n\nlights_on\tlights on\nmirror\tsmart_mirror\nLIGHTS\tlights\n")
    lexicon = Lexicon(UNITS, path)
    assert lexicon.sayings[lexicon.labels["lights_on"]] == (2, 3)
    assert lexicon.labels["mirror"] == 4 and lexicon.labels["LIGHTS"] == 2
    assert lexicon.names()[lexicon.labels["lights_on"]] == "lights_on"


def test_several_words_are_spelled_one_after_the_other(tmp_path: Path) -> None:
    lexicon = Lexicon(UNITS, written(tmp_path, "mirror\tsmart_mirror\nboth\tlights on\n"))
    number = lexicon.find("both mirror")
    assert number is not None and lexicon.sayings[number] == (2, 3, 4)
    assert lexicon.find("both mirror") == number and lexicon.names()[number] == "both mirror"
    assert lexicon.find("mirror") == 4 and lexicon.find("mirror off") is None and lexicon.find("off") is None


@pytest.mark.parametrize(
    ("line", "said"),
    [("lights on", "needed: a label, a tab"), ("x\t ", "needed"), ("x\tlights off", "'off' is no unit")],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        Lexicon(UNITS, written(tmp_path, f"on\ton\n{line}\n"))
    assert "line 2" in str(error.value)
