"""The presets hold the original numbers, files are read strictly, and what cannot work is refused in one clear line."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from kouling import config
from kouling.config import (
    PRESETS,
    Config,
    EncoderConfig,
    FeatureConfig,
    exact_div,
    from_constants,
    from_dict,
    load,
    to_toml,
)

# The original configuration, written out.
CONSTANTS = [
    "CONFORMER_LAYERS",
    "CONFORMER_ATTENTION_HEADS",
    "CONFORMER_HIDDEN_SIZE",
    "CONFORMER_CONV_KERNEL_SIZE",
    "STREAMING_CHUNK_SIZE",
    "MAX_CACHED_FRAMES",
    "STREAMING_STEP_SIZE",
    "FRAME_SHIFT_MS",
    "MAX_COMMAND_DURATION_S",
]
ORIGINAL = {"base": [4, 8, 128, 31, 10, 100, 5, 10, 5], "small": [2, 4, 64, 15, 5, 50, 3, 10, 5]}

ORIGINAL_FILE = '''\
"""Configuration of the voice command model."""
import os
import a_package_that_is_not_installed
from pathlib import Path

ROOT: Path = Path(__file__).parent
CONFORMER_LAYERS = 2          # 4 in the big model
CONFORMER_ATTENTION_HEADS = 4
CONFORMER_HIDDEN_SIZE: int = 64
CONFORMER_CONV_KERNEL_SIZE = 15
STREAMING_CHUNK_SIZE = 5
MAX_CACHED_FRAMES = 50
STREAMING_STEP_SIZE = 3
FRAME_SHIFT_MS = 10
MAX_COMMAND_DURATION_S = 5
MODEL_PATH = os.environ["NO_SUCH_VARIABLE"] + "/model.npu"
Path({marker!r}).write_text("executed")
raise SystemExit("executed")
def main(): return CONFORMER_LAYERS / 0
'''


def refusal(read: Any, *arguments: Any) -> str:
    """The message that refuses, after checking that it is one line."""
    with pytest.raises(ValueError) as caught:
        read(*arguments)
    message = str(caught.value)
    assert message
    assert len(message.splitlines()) == 1
    return message


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# Presets and what follows from them


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_holds_the_original_numbers(name: str) -> None:
    preset = PRESETS[name]
    encoder = preset.encoder
    model = [encoder.layers, encoder.attention_heads, encoder.hidden_size, encoder.conv_kernel_size]
    grid = [encoder.streaming_chunk_size, encoder.max_cached_frames, encoder.streaming_step_size]
    assert [*model, *grid, preset.features.frame_shift_ms, preset.max_command_duration_s] == ORIGINAL[name]


def test_the_presets_are_the_original_pair() -> None:
    assert set(PRESETS) == set(ORIGINAL)


@pytest.mark.parametrize(
    ("name", "lookahead", "left_context", "receptive_field", "frame_s"),
    [("base", 5, 20, 4 * (20 + 30) * 5, 0.05), ("small", 2, 16, 2 * (16 + 14) * 3, 0.03)],
)
def test_derived_numbers_of_a_preset(
    name: str, lookahead: int, left_context: int, receptive_field: int, frame_s: float
) -> None:
    encoder = PRESETS[name].encoder
    assert (encoder.lookahead, encoder.left_context, encoder.receptive_field) == (
        lookahead,
        left_context,
        receptive_field,
    )
    assert encoder.frames_per_step == 1
    assert PRESETS[name].encoder_frame_s == pytest.approx(frame_s)


def test_a_step_may_make_several_encoder_frames() -> None:
    encoder = EncoderConfig(subsampling=4, streaming_step_size=12, streaming_chunk_size=18, max_cached_frames=47)
    assert (encoder.frames_per_step, encoder.lookahead, encoder.left_context) == (3, 6, 11)


def test_features_have_a_window_of_400_samples_every_160() -> None:
    assert (FeatureConfig().window_samples, FeatureConfig().hop_samples) == (400, 160)


def test_exact_div_refuses_a_ratio_that_is_not_whole() -> None:
    assert exact_div(12, 4) == 3
    assert refusal(exact_div, 13, 4) == "13 is not a multiple of 4"


# Reading and writing TOML


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_toml(name: str, tmp_path: Path) -> None:
    assert load(written(tmp_path / "c.toml", to_toml(PRESETS[name]))) == PRESETS[name]


def test_every_key_survives_toml(tmp_path: Path) -> None:
    """None of these values is that of the preset `base`, which fills in what is missing."""
    changed = Config(
        FeatureConfig(frame_length_ms=32, num_mels=40, low_hz=60.5, high_hz=4000.0, log_floor=-1.5, log_scale=3e-7),
        EncoderConfig(
            *(3, 6, 96, 7, 2, 12, 1, 4, 16, 80, 8, "local", 40, "batch"),
            *([1, 2, 3], [5, 6, 7, 8, 9, 10], [11, 12, 13]),
        ),
        max_command_duration_s=2.5,
    )
    fixed = {"sample_rate_hz", "frame_shift_ms"}  # have one allowed value
    for own, base in ((changed.features, Config().features), (changed.encoder, Config().encoder)):
        assert {key for key, value in asdict(own).items() if value == getattr(base, key)} <= fixed
    assert load(written(tmp_path / "c.toml", to_toml(changed))) == changed
    assert from_dict(config.to_dict(changed)) == changed


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    path = written(tmp_path / "c.toml", 'preset = "small"\nmax_command_duration_s = 3\n[encoder]\nlayers = 3\n')
    small = PRESETS["small"]
    assert load(path) == replace(small, encoder=replace(small.encoder, layers=3), max_command_duration_s=3.0)
    assert isinstance(load(path).max_command_duration_s, float)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_loaded_by_its_name(name: str) -> None:
    assert load(name) == PRESETS[name]


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    message = refusal(load, "smal")
    assert "'smal'" in message and "base" in message and "small" in message


def test_a_missing_file_is_no_value_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[encoder]\nlayers = 4\nhidden_size = = 3\n", "line 3, column 15"),
        ("layers = 4 heads = 8\n", "line 1, column 12"),
        ("[encoder]\nlayers = 4\nlayers = 5\n", "line 3, column 11"),
    ],
)
def test_broken_toml_names_file_line_and_column(text: str, where: str, tmp_path: Path) -> None:
    path = written(tmp_path / "broken.toml", text)
    message = refusal(load, path)
    assert message.startswith(f"{path}: ") and where in message


def test_a_file_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "c.toml", "# 配置\n".encode("gbk"))
    message = refusal(load, path)
    assert message.startswith(f"{path}: ") and "UTF-8" in message


@pytest.mark.parametrize(
    ("table", "given", "allowed"),
    [
        ({"encodr": {}}, "'encodr'", "encoder"),
        ({"encoder": {"layer": 4}}, "'encoder.layer'", "encoder.layers"),
        ({"features": {"log_base": 10}}, "'features.log_base'", "features.log_scale"),
    ],
)
def test_an_unknown_key_is_refused_with_those_there_are(table: dict[str, Any], given: str, allowed: str) -> None:
    message = refusal(from_dict, table)
    assert given in message and allowed in message


@pytest.mark.parametrize(
    ("table", "key", "given", "allowed"),
    [
        ({"encoder": {"layers": "4"}}, "encoder.layers", "'4'", "int"),
        ({"encoder": {"layers": 4.0}}, "encoder.layers", "4.0", "int"),
        ({"encoder": {"layers": True}}, "encoder.layers", "True", "int"),
        ({"max_command_duration_s": True}, "max_command_duration_s", "True", "float"),
        ({"features": {"low_hz": "20"}}, "features.low_hz", "'20'", "float"),
        ({"encoder": {"attention": 1}}, "encoder.attention", "1", "str"),
        ({"encoder": 4}, "encoder", "4", "table"),
        ({"preset": 4}, "preset", "4", "base, small"),
        ({"preset": ["base"]}, "preset", "['base']", "base, small"),
    ],
)
def test_a_wrong_type_is_refused(table: dict[str, Any], key: str, given: str, allowed: str) -> None:
    message = refusal(from_dict, table)
    assert key in message and given in message and allowed in message.split("allowed: ")[1]


@pytest.mark.parametrize(
    ("changes", "given", "nearest"),
    [
        ({"hidden_size": 100}, "hidden_size 100", "96 or 104"),
        ({"hidden_size": 6}, "hidden_size 6", "8"),
        ({"streaming_step_size": 7}, "streaming_step_size 7", "5 or 10"),
        ({"streaming_step_size": 3}, "streaming_step_size 3", "5"),
        ({"streaming_step_size": 0}, "streaming_step_size 0", "5"),
        ({"streaming_chunk_size": 4}, "streaming_chunk_size 4", "5"),
        ({"max_cached_frames": 4}, "max_cached_frames 4", "5"),
    ],
)
def test_an_impossible_combination_is_refused_with_the_nearest_possible(
    changes: dict[str, int], given: str, nearest: str
) -> None:
    message = refusal(from_dict, {"encoder": changes})
    assert given in message
    assert message.split("nearest allowed: ")[1] == nearest
    (key,) = changes
    for value in nearest.split(" or "):
        from_dict({"encoder": {"streaming_chunk_size": 20, **changes, key: int(value)}})


@pytest.mark.parametrize(
    ("section", "key", "value", "allowed"),
    [
        ("encoder", "layers", 0, "1 or more"),
        ("encoder", "attention_heads", 0, "1 or more"),
        ("encoder", "hidden_size", -8, "1 or more"),
        ("encoder", "ffn_expansion", 0, "1 or more"),
        ("encoder", "stem_channels", 0, "1 or more"),
        ("encoder", "stem_layers", -1, "0 or more"),
        ("encoder", "subsampling", 0, "1 or more"),
        ("encoder", "conv_kernel_size", 1, "2 or more"),
        ("encoder", "attention", "global", "windowed"),
        ("encoder", "norm", "group", "layer, batch"),
        ("features", "sample_rate_hz", 8000, "16000"),
        ("features", "frame_shift_ms", 20, "10"),
        ("features", "frame_length_ms", 9, "10 to 32"),
        ("features", "frame_length_ms", 33, "10 to 32"),
        ("features", "num_mels", 42, "multiples of 4 from 8 to 128"),
        ("features", "num_mels", 4, "multiples of 4 from 8 to 128"),
        ("features", "num_mels", 132, "multiples of 4 from 8 to 128"),
        ("features", "low_hz", -1.0, "0 <= low_hz"),
        ("features", "low_hz", 7600.0, "low_hz < high_hz"),
        ("features", "high_hz", 8001.0, "high_hz <= 8000"),
        ("features", "log_scale", 0.0, "above 0"),
        ("features", "log_scale", float("nan"), "above 0"),
        ("", "max_command_duration_s", 0.0, "above 0"),
        ("", "max_command_duration_s", 61.0, "at most 60"),
        ("", "max_command_duration_s", float("nan"), "above 0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_range(section: str, key: str, value: Any, allowed: str) -> None:
    message = refusal(from_dict, {section: {key: value}} if section else {key: value})
    assert key in message and str(value) in message and allowed in message.split("allowed: ")[1]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("encoder", "streaming_chunk_size", 5),
        ("encoder", "max_cached_frames", 5),
        ("encoder", "conv_kernel_size", 2),
        ("features", "frame_length_ms", 10),
        ("features", "frame_length_ms", 32),
        ("features", "num_mels", 8),
        ("features", "num_mels", 128),
        ("features", "low_hz", 0.0),
        ("features", "high_hz", 8000.0),
    ],
)
def test_the_ends_of_a_range_are_allowed(section: str, key: str, value: Any) -> None:
    assert getattr(getattr(from_dict({section: {key: value}}), section), key) == value


# The original's config.py


def test_the_original_config_py_is_imported_unchanged_and_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = written(tmp_path / "config.py", ORIGINAL_FILE.format(marker=str(marker)))
    assert config.to_dict(load(path)) == config.to_dict(
        replace(
            PRESETS["small"], encoder=replace(PRESETS["small"].encoder, stem_channels=Config().encoder.stem_channels)
        )
    )
    assert not marker.exists()


@pytest.mark.parametrize("constant", CONSTANTS)
def test_each_original_constant_sets_its_own_field(constant: str) -> None:
    value = {"CONFORMER_HIDDEN_SIZE": 64, "FRAME_SHIFT_MS": 10, "STREAMING_STEP_SIZE": 4, "STREAMING_CHUNK_SIZE": 9}
    number = value.get(constant, 16)
    imported = from_constants(f"{constant} = {number}\n")
    *section, key = config.ORIGINAL_CONSTANTS[constant].split(".")
    table: dict[str, Any] = {section[0]: {key: number}} if section else {key: number}
    if constant == "STREAMING_STEP_SIZE":
        table["encoder"]["subsampling"] = number  # one step makes one encoder frame
    assert imported == from_dict(table)
    assert (imported == Config()) == (constant == "FRAME_SHIFT_MS")


@pytest.mark.parametrize(
    "value",
    ["2 + 2", "-4", "int('4')", "OTHER", "'4'", "True", "None", "[4]", "4 if True else 5"],
)
def test_a_constant_that_is_no_plain_number_is_refused_with_its_line(value: str) -> None:
    message = refusal(from_constants, f"OTHER = 4\n\nCONFORMER_LAYERS = {value}\n", "their/config.py")
    assert message == "their/config.py:3: CONFORMER_LAYERS is not a plain number"


@pytest.mark.parametrize(
    "text", ["", "OTHER = 4\n", "class Config:\n    CONFORMER_LAYERS = 4\n", "CONFORMER_LAYERS: int\n"]
)
def test_a_file_without_the_constants_is_refused_with_their_names(text: str) -> None:
    message = refusal(from_constants, text, "their/config.py")
    assert message.startswith("their/config.py: ") and all(name in message for name in CONSTANTS)


@pytest.mark.parametrize("text", ["CONFORMER_LAYERS = \n", "x = 1\ny = = 2\n", "CONFORMER_LAYERS = 2\n\0"])
def test_a_file_that_is_not_python_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = written(tmp_path / "config.py", text)
    assert refusal(load, path).startswith(f"{path}: not valid Python")


def test_impossible_constants_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "config.py", "CONFORMER_HIDDEN_SIZE = 100\nCONFORMER_ATTENTION_HEADS = 8\n")
    assert "96 or 104" in refusal(load, path)
    assert "streaming_step_size is 2.5" in refusal(from_constants, "STREAMING_STEP_SIZE = 2.5\n")


@pytest.mark.parametrize(
    "text",
    ["# -*- coding: gbk -*-\n# 层数\nCONFORMER_LAYERS = 2\n".encode("gbk"), b"\xef\xbb\xbfCONFORMER_LAYERS = 2\n"],
    ids=["declared-gbk", "byte-order-mark"],
)
def test_python_source_in_any_encoding_that_python_reads(text: bytes, tmp_path: Path) -> None:
    assert load(written(tmp_path / "config.py", text)).encoder.layers == 2


def test_python_source_in_an_undeclared_encoding_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "config.py", 'NAME = "层数"\nCONFORMER_LAYERS = 2\n'.encode("gbk"))
    assert refusal(load, path).startswith(f"{path}: ")
