"""A checkpoint comes back as it was written, a damaged one is refused in one line, and a failed write harms nothing."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from kouling import checkpoint
from kouling.checkpoint import FORMAT_VERSION, ModelInfo, load, save
from kouling.config import PRESETS

INFO = ModelInfo(
    name="en-commands",
    language="en",
    config=replace(PRESETS["small"], max_command_duration_s=2.5),
    units=("<blank>", "<unknown>", "打开", "go"),
    decoder={"threshold": 0.6, "thresholds": {"go": 0.7}},
    provenance={"recipe": "en-commands", "seed": 1, "validation": {"accuracy": 96.5}},
)


def weights(seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "head.weight": rng.standard_normal((4, 64)).astype(np.float16),
        "blocks.0.norm.bias": rng.standard_normal(64).astype(np.float32),
        "blocks.0.scale": rng.integers(-128, 128, (3, 5)).astype(np.int8),
        "transposed": rng.standard_normal((6, 4)).astype(np.float16).T,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save(path, INFO, weights())
    return path


def refusal(path: Path) -> str:
    """The message that refuses a file, after checking that it is one line that names it."""
    with pytest.raises(ValueError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: not a usable checkpoint: ")
    assert len(message.splitlines()) == 1
    return message


def assert_holds(path: Path, info: ModelInfo, expected: dict[str, NDArray[Any]]) -> None:
    read_info, read = load(path)
    assert read_info == info
    assert read.keys() == expected.keys()
    for key, value in expected.items():
        assert read[key].dtype == value.dtype
        np.testing.assert_array_equal(read[key], value)


def test_a_checkpoint_comes_back_as_it_was_written(path: Path) -> None:
    assert_holds(path, INFO, weights())
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_description_survives_as_text(preset: str) -> None:
    info = replace(INFO, config=PRESETS[preset])
    assert ModelInfo.from_json(info.to_json()) == info
    assert "打开" in info.to_json()  # readable by people, not escaped


def test_a_new_checkpoint_replaces_the_old(path: Path) -> None:
    save(path, replace(INFO, name="second"), weights(1))
    assert_holds(path, replace(INFO, name="second"), weights(1))
    assert os.listdir(path.parent) == [path.name]


# Refused files


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent.safetensors: no such checkpoint"):
        load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("kept", [0.0, 1, 7, 8, 9, 0.1, 0.5, 0.9, -1], ids=str)
def test_a_truncated_file_is_refused(path: Path, kept: float) -> None:
    """By so many bytes, or by such a share of them."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    assert len(path.read_bytes()) < len(whole)
    refusal(path)


@pytest.mark.parametrize("number", range(5))
def test_random_bytes_are_refused(tmp_path: Path, number: int) -> None:
    path = tmp_path / "random.safetensors"
    path.write_bytes(np.random.default_rng(number).bytes(10 ** (number + 1)))
    refusal(path)


@pytest.mark.parametrize(
    ("position", "bytes_put"),
    [(0, b"\xff" * 8), (0, b"\x00" * 8), (8, b"["), (9, b"\xff"), (12, b"\n\n")],
    ids=["huge-header", "no-header", "list", "not-utf8", "line-ends"],
)
def test_a_corrupt_header_is_refused(path: Path, position: int, bytes_put: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[position : position + len(bytes_put)] = bytes_put
    path.write_bytes(whole)
    refusal(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}], ids=["none", "other"])
def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "theirs.safetensors"
    save_file(weights(), path, metadata)
    assert "not one of kouling" in refusal(path)


@pytest.mark.parametrize("preset", [["base"], "huge", 3], ids=str)
def test_a_description_with_an_unknown_preset_is_refused(preset: Any) -> None:
    with pytest.raises(ValueError):
        ModelInfo.from_json(json.dumps({**json.loads(INFO.to_json()), "config": {"preset": preset}}))


def described(path: Path, **changes: Any) -> Path:
    """A checkpoint whose description has these entries changed, or left out where the change is None."""
    table = {key: value for key, value in {**json.loads(INFO.to_json()), **changes}.items() if value is not None}
    save_file({"a": np.zeros(3)}, path, {"kouling": json.dumps(table)})
    return path


def test_a_newer_format_is_refused_with_both_numbers(path: Path) -> None:
    message = refusal(described(path, format=FORMAT_VERSION + 1))
    assert f"format {FORMAT_VERSION + 1} " in message and f"({FORMAT_VERSION})" in message
    load(described(path, format=FORMAT_VERSION))


@pytest.mark.parametrize("missing", ["format", "name", "language", "config", "units", "decoder", "provenance"])
def test_an_incomplete_description_is_refused(path: Path, missing: str) -> None:
    assert missing in refusal(described(path, **{missing: None}))


@pytest.mark.parametrize(
    "changes",
    [{"format": "1"}, {"units": 3}, {"config": 3}, {"config": {"encoder": {"layers": 0}}}, {"config": {"layer": 3}}],
    ids=str,
)
def test_a_description_that_makes_no_sense_is_refused(path: Path, changes: dict[str, Any]) -> None:
    refusal(described(path, **changes))


@pytest.mark.parametrize("text", ["", "kouling", "[]", "3", "null", '{"format": 1'])
def test_a_description_that_is_no_table_is_refused(path: Path, text: str) -> None:
    save_file({"a": np.zeros(3)}, path, {"kouling": text})
    assert "no description of a kouling model" in refusal(path)


# Failed writes


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("where", "error", "raised"),
    [
        ("save_file", SafetensorError("Error while serializing: No space left on device"), OSError),
        ("save_file", FULL, OSError),
        ("save_file", KeyboardInterrupt(), KeyboardInterrupt),
        ("replace", FULL, OSError),
        ("replace", KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["full-disk", "full-disk-in-python", "ctrl-c", "full-disk-at-rename", "ctrl-c-at-rename"],
)
def test_an_interrupted_write_keeps_the_old_file_and_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException, raised: type[BaseException]
) -> None:
    def fail(source: Any, target: Any, *rest: Any) -> None:
        if where == "save_file":
            Path(target).write_bytes(b"half of it")  # to the temporary
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(*((checkpoint, "save_file") if where == "save_file" else (os, "replace")), fail)
        with pytest.raises(raised):
            save(path, replace(INFO, name="second"), weights(1))
    assert_holds(path, INFO, weights())
    assert os.listdir(path.parent) == [path.name]


def test_a_folder_that_is_not_there_is_an_os_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "model.safetensors"
    with pytest.raises(OSError, match="model.safetensors"):
        save(path, INFO, weights())
    assert not path.parent.exists()
