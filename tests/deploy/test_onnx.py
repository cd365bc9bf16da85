"""The exported step is the encoder, for ever, at any number of steps; what is no such file is refused in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="export needs torch", exc_type=ImportError)
onnx = pytest.importorskip("onnx", reason="export needs onnx", exc_type=ImportError)
pytest.importorskip("onnxruntime", reason="running needs onnxruntime", exc_type=ImportError)

import torch  # noqa: E402

from kouling import checkpoint  # noqa: E402
from kouling.deploy import step  # noqa: E402
from kouling.deploy.onnx import OnnxRunner, export  # noqa: E402
from kouling.encoder import Encoder  # noqa: E402
from tests.shapes import SHAPES  # noqa: E402

TOLERANCE = 1e-4
STEP = 8  # feature frames, of the tiny model
Features = NDArray[np.float32]


@pytest.fixture(scope="module")
def runner(tiny_model: Path) -> OnnxRunner:
    return OnnxRunner(tiny_model / "step.onnx")


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return step.load(tiny_model / "model.safetensors")[1]


def speechlike(num_frames: int, seed: int = 0) -> Features:
    """Features that wander as those of speech do, between 0 and 3, with silences."""
    rng = np.random.default_rng(seed)
    shape = np.repeat(rng.uniform(0, 3, (num_frames // 10 + 1, 16)), 10, axis=0)[:num_frames]
    features = np.maximum(shape + rng.normal(0, 0.3, shape.shape), 0)
    features[(np.arange(num_frames) // 50) % 4 == 3] = 0
    return features.astype(np.float32)


def on_torch(encoder: Encoder, features: Features) -> Features:
    """Log-probabilities of PyTorch: a whole utterance, in pieces of 6 s to save memory."""
    state = encoder.initial_state(1)
    parts = []
    with torch.inference_mode():
        for piece in torch.from_numpy(features)[None].split(600, dim=1):
            log_probs, state = encoder(piece, state)
            parts.append(log_probs[0].numpy())
    return np.concatenate(parts)


def on_onnx(runner: OnnxRunner, features: Features, steps_per_call: int) -> Features:
    """The same of the exported step, its state fed back call after call."""
    state = runner.initial_state()
    parts = []
    for start in range(0, len(features), steps_per_call * STEP):
        log_probs, state = runner.step(features[start : start + steps_per_call * STEP], state)
        parts.append(log_probs)
    return np.concatenate(parts)


@pytest.mark.parametrize("steps_per_call", [1, 2, 5])
def test_the_exported_step_equals_pytorch(runner: OnnxRunner, encoder: Encoder, steps_per_call: int) -> None:
    features = speechlike(360)
    expected = on_torch(encoder, features)
    assert expected.shape == (90, 5) and expected.std() > 1.0
    np.testing.assert_allclose(on_onnx(runner, features, steps_per_call), expected, rtol=0, atol=TOLERANCE)


def test_the_exported_step_still_equals_pytorch_after_a_minute(runner: OnnxRunner, encoder: Encoder) -> None:
    features = speechlike(6400, seed=1)
    expected = on_torch(encoder, features)
    heard = on_onnx(runner, features, 5)
    np.testing.assert_allclose(heard, expected, rtol=0, atol=TOLERANCE)
    alone = on_onnx(runner, features[-80:], 5)  # the same end without the minute before it: the state matters
    assert np.abs(heard[-20:] - alone).max() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_of_any_shape_are_exported(shape: str, shaped_model: Callable[..., Path], tmp_path: Path) -> None:
    export(shaped_model(shape), tmp_path / "step.onnx")
    runner, encoder = OnnxRunner(tmp_path / "step.onnx"), step.load(shaped_model(shape))[1]
    assert [tensor.shape for tensor in runner.initial_state()] == [
        tuple(tensor.shape) for tensor in step.flatten(encoder.initial_state(1))
    ]
    features = speechlike(3200, seed=2)
    expected = on_torch(encoder, features)
    assert expected.std() > 1.0
    for steps_per_call in (1, 7):
        np.testing.assert_allclose(on_onnx(runner, features, steps_per_call), expected, rtol=0, atol=TOLERANCE)


def test_batch_norm_s_statistics_are_exported(tiny_model: Path, runner: OnnxRunner) -> None:
    info, weights = checkpoint.load(tiny_model / "model.safetensors")
    features = speechlike(360)
    heard = on_onnx(runner, features, 5)
    for statistic, value in (("running_mean", 0), ("running_var", 1)):
        keys = [key for key in weights if key.endswith(statistic)]
        assert len(keys) == 2
        changed = {**weights, **{key: np.full_like(weights[key], value) for key in keys}}
        assert np.abs(heard - on_torch(step.build(info, changed), features)).max() > 0.1


def test_a_step_changes_neither_its_state_nor_its_features(runner: OnnxRunner) -> None:
    features = speechlike(2 * STEP)
    _, state = runner.step(features, runner.initial_state())
    before = [tensor.copy() for tensor in (features, *state)]
    first, _ = runner.step(features, state)
    second, _ = runner.step(features, state)
    np.testing.assert_array_equal(first, second)
    for left, right in zip(before, (features, *state), strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_initial_state_is_pytorch_s_and_keeps_its_shapes(runner: OnnxRunner, encoder: Encoder) -> None:
    state = runner.initial_state()
    for _ in range(3):
        for mine, theirs in zip(state, step.flatten(encoder.initial_state(1)), strict=True):
            assert mine.shape == tuple(theirs.shape) and mine.dtype == theirs.numpy().dtype
        _, state = runner.step(speechlike(STEP), state)
    assert not any(tensor.any() for tensor in runner.initial_state())


def test_the_file_tells_what_the_model_is(tiny_model: Path, runner: OnnxRunner) -> None:
    assert runner.info == checkpoint.load_info(tiny_model / "model.safetensors")


def test_inputs_and_outputs_have_names_that_can_be_read(tiny_model: Path) -> None:
    graph = onnx.load(tiny_model / "step.onnx").graph
    blocks = [f"blocks.{i}.{name}" for i in range(2) for name in ("keys", "values", "conv")]
    state = ["stem", *blocks, "frames_seen"]
    assert [value.name for value in graph.input] == ["features", *state]
    assert [value.name for value in graph.output] == ["log_probs", *(f"{name}.next" for name in state)]


def test_the_file_holds_no_path_of_the_machine_that_made_it(tiny_model: Path) -> None:
    content = (tiny_model / "step.onnx").read_bytes()
    assert b"kouling" in content and b"blocks.0.keys" in content  # so this would find a path
    places = [b"/work", b"/root", b"/tmp", b"/home", b"site-packages", os.fsencode(tiny_model), b".py"]
    assert [place for place in places if place in content] == []


# Refusals


def refusal(path: Path) -> str:
    """The message that refuses a file, after checking that it is one line that names it."""
    with pytest.raises(ValueError) as caught:
        OnnxRunner(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1 and len(message) < 300
    return message


def with_metadata(model: Path, text: str | None) -> bytes:
    """The model's file with another description, or none."""
    proto = onnx.load(model)
    del proto.metadata_props[:]
    if text is not None:
        proto.metadata_props.append(onnx.StringStringEntryProto(key="kouling", value=text))
    content: bytes = proto.SerializeToString()
    return content


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: b"not a model, but text\n",
        lambda content: bytes(range(256)) * 20,
        lambda content: content[:2000] + bytes(5000) + content[7000:],
    ],
    ids=["half", "cut", "empty", "text", "binary", "zeros"],
)
def test_damaged_files_are_refused(tiny_model: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "step.onnx"
    path.write_bytes(damage((tiny_model / "step.onnx").read_bytes()))
    refusal(path)


def test_a_model_of_another_maker_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "step.onnx"
    path.write_bytes(with_metadata(tiny_model / "step.onnx", None))
    assert "not one of kouling" in refusal(path)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 99}'])
def test_a_description_that_cannot_be_read_is_refused(tiny_model: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "step.onnx"
    path.write_bytes(with_metadata(tiny_model / "step.onnx", text))
    refusal(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        OnnxRunner(tmp_path / "step.onnx")
    assert str(caught.value) == f"{tmp_path / 'step.onnx'}: no such model"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path)


def test_a_missing_runtime_says_what_to_install(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install 'kouling\[onnx\]'"):
        OnnxRunner(tiny_model / "step.onnx")


def test_export_refuses_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"text")
    with pytest.raises(ValueError, match="bad.safetensors: not a usable checkpoint"):
        export(tmp_path / "bad.safetensors", tmp_path / "step.onnx")
    with pytest.raises(FileNotFoundError, match="none.safetensors: no such checkpoint"):
        export(tmp_path / "none.safetensors", tmp_path / "step.onnx")
    assert os.listdir(tmp_path) == ["bad.safetensors"]


Weights = dict[str, NDArray[Any]]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda weights: weights.pop("head.bias"), "head.bias"),
        (lambda weights: weights.update(extra=np.zeros(3)), "extra"),
        (lambda weights: weights.update({"head.weight": weights["head.weight"][:-1]}), "head.weight"),
        (lambda weights: weights.update({"stem.norm.weight": np.zeros(17, np.float16)}), "stem.norm.weight"),
    ],
    ids=["missing", "unexpected", "units", "width"],
)
def test_weights_that_do_not_fit_are_refused(tiny_model: Path, change: Callable[[Weights], Any], named: str) -> None:
    info, weights = checkpoint.load(tiny_model / "model.safetensors")
    change(weights)
    with pytest.raises(ValueError) as caught:
        step.build(info, weights)
    assert named in str(caught.value) and len(str(caught.value).splitlines()) == 1


class Exported:
    """What torch.onnx.export returns, without the seconds that it takes."""

    def __init__(self, model: Path) -> None:
        self.model_proto = onnx.load(model)


def test_a_failed_export_leaves_the_old_file_and_nothing_else(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "step.onnx"
    output.write_bytes(b"old")
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Exported(tiny_model / "step.onnx"))

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            export(tiny_model / "model.safetensors", output)
    assert os.listdir(tmp_path) == ["step.onnx"] and output.read_bytes() == b"old"
    export(tiny_model / "model.safetensors", output)
    assert os.listdir(tmp_path) == ["step.onnx"] and len(output.read_bytes()) > 10_000
