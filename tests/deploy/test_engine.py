"""The C engine hears what Python hears: features, log-probabilities and events, in any portions, for ever."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio, checkpoint, commands, recognizer
from kouling.commands import Command
from kouling.deploy import engine, model_file
from kouling.deploy.engine import Engine
from kouling.deploy.grid import Grid
from kouling.deploy.onnx import OnnxRunner
from kouling.features import LogMel
from kouling.recognizer import Recognizer
from tests.shapes import SHAPES

_engine = pytest.importorskip("kouling._engine", reason="the engine was not built", exc_type=ImportError)

EXAMPLES = Path(__file__).parents[2] / "examples"
MODELS = ["en-commands", "zh-commands", "en-base", "en-small", "en-small-npu"]
Samples = NDArray[np.int16]


@pytest.fixture(scope="module")
def speech() -> Samples:
    """17 s of real words, in noise and without."""
    return np.concatenate([audio.read(path) for path in sorted(EXAMPLES.glob("*.ogg"))])


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Callable[..., Engine]:
    """tiny(weights, state): the tiny model in the engine."""

    def make(weights: str, state: str = "float") -> Engine:
        path = tiny_model / f"{weights}-{state}.kouling"
        engine.export(tiny_model / "model.safetensors", path, weights, state=state)
        return Engine(path)

    return make


def step_file(model: str) -> Path:
    return recognizer.MODELS / model / recognizer.STEP_FILE


def hear(heard_by: Recognizer, samples: Samples, portion: int) -> list[Command]:
    heard_by.reset()
    heard = []
    for start in range(0, len(samples), portion):
        heard += heard_by.accept(samples[start : start + portion])
    return heard + heard_by.finish()


def signal_to_noise_db(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    return float(10 * np.log10((expected**2).sum() / ((found - expected) ** 2).sum()))


def whole_again(numbers: NDArray[np.int8], multipliers: NDArray[np.int8], scale: NDArray[Any]) -> NDArray[Any]:
    return numbers * np.repeat(multipliers.astype(np.float64), model_file.GROUP, axis=1) * scale[:, None]


# Against Python


@pytest.mark.parametrize("model", MODELS)
def test_features_are_those_of_the_one_definition(model: str, speech: Samples) -> None:
    heard_by = recognizer.load(model)
    expected = LogMel(heard_by.info.config.features).accept(speech)
    stream = heard_by._stream  # type: ignore[attr-defined]
    found = np.concatenate([stream.features(part) for part in np.array_split(speech, 7)])
    assert found.shape == expected.shape
    # 2e-3: both round to float32, and quiet bands beside loud ones are what is left over from larger numbers.
    difference = np.abs(found - expected) * heard_by.info.config.features.log_scale
    assert difference.max() < 2e-3 and (difference > 1e-3).mean() < 1e-5


@pytest.mark.parametrize("model", MODELS)
def test_int8_log_probabilities_are_near_those_of_float(model: str, speech: Samples) -> None:
    expected = Recognizer(OnnxRunner(step_file(model))).log_probs(speech)
    found = recognizer.load(model).log_probs(speech)
    assert found.shape == expected.shape
    assert signal_to_noise_db(expected, found) > 30


@pytest.mark.parametrize("model", MODELS)
def test_float_log_probabilities_are_those_of_the_checkpoint(model: str, speech: Samples, tmp_path: Path) -> None:
    engine.export(recognizer.MODELS / model / "model.safetensors", tmp_path / "m.kouling", "float")
    expected = Recognizer(OnnxRunner(step_file(model))).log_probs(speech)
    found = Engine(tmp_path / "m.kouling").recognizer().log_probs(speech)
    assert np.abs(found - expected).max() < 1e-2 and signal_to_noise_db(expected, found) > 80


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("command_set", [None, "robot.toml", "eight.toml"])
def test_events_are_those_of_python(model: str, command_set: str | None, speech: Samples) -> None:
    if command_set and model == "zh-commands":
        pytest.skip("the sets are English")
    runner = OnnxRunner(step_file(model))
    chosen = commands.load(EXAMPLES / command_set, runner.info.units) if command_set else None
    expected = hear(Recognizer(runner, chosen), speech, 16000)
    found = hear(recognizer.load(model, EXAMPLES / command_set if command_set else None), speech, 16000)
    assert [command.name for command in found] == [command.name for command in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.start_s, one.end_s) == pytest.approx((other.start_s, other.end_s), abs=0.06)
        assert one.confidence == pytest.approx(other.confidence, abs=0.2)


@pytest.mark.parametrize("model", MODELS)
def test_int4_products_are_those_of_the_rounded_weights(
    model: str, speech: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint_path = recognizer.MODELS / model / "model.safetensors"
    engine.export(checkpoint_path, tmp_path / "int4.kouling", "int4")
    linear = model_file._Packer.linear

    def rounded(
        packer: Any, weight: NDArray[Any], bias: NDArray[Any], scheme: str | None = None, on: Grid | None = None
    ) -> None:
        if scheme is None and packer.kinds:  # the first layer is int8
            more = model_file.padded(weight.shape[1], model_file.GROUP) - weight.shape[1]
            weight = whole_again(*model_file.round_to_int4(np.pad(weight, ((0, 0), (0, more)))))[:, : weight.shape[1]]
        linear(packer, weight, bias, scheme, on)

    monkeypatch.setattr(model_file._Packer, "linear", rounded)
    engine.export(checkpoint_path, tmp_path / "float.kouling", "float")
    expected = Engine(tmp_path / "float.kouling").recognizer().log_probs(speech)
    found = Engine(tmp_path / "int4.kouling").recognizer().log_probs(speech)
    assert signal_to_noise_db(expected, found) > 30
    whole = recognizer.MODELS / model / recognizer.ENGINE_FILE
    assert (tmp_path / "int4.kouling").stat().st_size < 0.62 * whole.stat().st_size


def test_int4_rounds_to_the_nearest_that_a_group_can_hold() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 96))
    weight[2] = 0
    numbers, multipliers, scale = model_file.round_to_int4(weight)
    assert numbers.min() == -8 and numbers.max() <= 7 and multipliers.shape == (5, 3)
    unit = np.abs(np.repeat(multipliers * scale[:, None], model_file.GROUP, axis=1))
    found = whole_again(numbers, multipliers, scale)
    # The largest of a group are cut off where that makes the error of all of them less.
    assert (np.abs(found - weight) <= unit / 2 + 1e-9).mean() > 0.95 and (np.abs(found - weight) <= unit * 3).all()


def test_numbers_are_rounded_to_the_nearest_bfloat16() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-12, -3e-5, 0.0])
    expected = [1.0, 1.0, 1 + 2**-6, 1 + 2**-7, -3.0040740966796875e-05, 0.0]
    assert model_file.through_bfloat16(values).tolist() == expected


def test_scales_are_numbers_that_the_file_holds() -> None:
    scale = model_file.round_to_int4(np.random.default_rng(1).normal(size=(64, 64)))[2]
    assert (model_file.through_bfloat16(scale) == scale).all()


@pytest.mark.parametrize("weights", ["float", "int8", "int4"])
def test_heads_and_channels_of_any_number_are_run(
    tiny: Callable[..., Engine], tiny_model: Path, voice: Callable[..., Samples], weights: str
) -> None:
    """The tiny model has heads of 8 and 4 channels, which are no multiples of what the kernels take at once."""
    samples = voice(96000, 1)
    expected = Recognizer(OnnxRunner(tiny_model / "step.onnx")).log_probs(samples)
    found = tiny(weights).recognizer().log_probs(samples)
    assert signal_to_noise_db(expected, found) > {"float": 70, "int8": 15, "int4": 5}[weights]


# Shapes: what pruning leaves, and kinds of attention

NUMBERS = {"float": 110, "int8": 35, "int4": 18}  # dB, of random weights


@pytest.fixture(scope="module")
def shaped(shaped_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Engine]:
    """shaped(shape, weights, state, **more): a model of one of SHAPES in the engine."""
    folder = tmp_path_factory.mktemp("shaped")

    def make(shape: str, weights: str = "float", state: str = "float", **more: Any) -> Engine:
        engine.export(shaped_model(shape, **more), folder / "m.kouling", weights, state=state)
        return Engine(folder / "m.kouling")

    return make


def torch_log_probs(checkpoint_path: Path, samples: Samples) -> NDArray[np.float32]:
    from kouling.deploy.pytorch import TorchRunner

    return Recognizer(TorchRunner(checkpoint_path)).log_probs(samples)


@pytest.mark.parametrize("weights", NUMBERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_of_any_shape_are_run(
    shape: str,
    weights: str,
    shaped: Callable[..., Engine],
    shaped_model: Callable[..., Path],
    voice: Callable[..., Samples],
) -> None:
    samples = voice(96000, 1)
    expected = torch_log_probs(shaped_model(shape), samples)
    found = shaped(shape, weights).recognizer().log_probs(samples)
    # Random weights without layer normalisation grow from block to block, and their errors with them.
    less = 4 if shape == "batch normalisation" and weights == "int4" else 0
    assert expected.std() > 1 and signal_to_noise_db(expected, found) > NUMBERS[weights] - less
    brief = shaped(shape, weights, "bfloat16").recognizer().log_probs(samples)
    assert (
        40 < signal_to_noise_db(found, brief) < 90
    )  # rounded, but no more; of linear attention the convolution's past


def test_a_stream_begins_after_a_hiss_where_the_model_says_so(
    shaped_model: Callable[..., Path], voice: Callable[..., Samples], tmp_path: Path
) -> None:
    info, weights = checkpoint.load(shaped_model("local"))
    found = {}
    for level in (0.0, 1.5):
        path = tmp_path / f"{level}.safetensors"
        checkpoint.save(path, replace(info, decoder={**info.decoder, "priming_level": level}), weights)
        engine.export(path, tmp_path / "model.kouling", weights="float")
        expected = torch_log_probs(path, voice(16000, 1))
        found[level] = Engine(tmp_path / "model.kouling").recognizer().log_probs(voice(16000, 1))
        assert signal_to_noise_db(expected, found[level]) > NUMBERS["float"]
    assert signal_to_noise_db(found[0.0], found[1.5]) < 40


@pytest.mark.parametrize("weights", NUMBERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_of_any_shape_compute_the_same_in_any_portions(
    shape: str, weights: str, shaped: Callable[..., Engine], voice: Callable[..., Samples]
) -> None:
    opened = shaped(shape, weights)
    features = LogMel(opened.info.config.features).accept(voice(64000, 2))
    step = opened.info.config.encoder.streaming_step_size
    features = features[: len(features) // step * step]
    subsampling = opened.info.config.encoder.subsampling
    whole = opened.stream(64).log_probs(features, subsampling)
    for steps in (1, 3):
        stream = opened.stream(5)
        portions = [features[start : start + steps * step] for start in range(0, len(features), steps * step)]
        found = np.concatenate([stream.log_probs(portion, subsampling) for portion in portions])
        np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("shape", ["linear", "linear, heads of 8"])
def test_sums_do_not_drift_in_minutes(
    shape: str, shaped: Callable[..., Engine], shaped_model: Callable[..., Path], voice: Callable[..., Samples]
) -> None:
    samples = voice(3 * 60 * 16000, 3)
    expected = torch_log_probs(shaped_model(shape), samples)
    exact, rounded = (shaped(shape, weights).recognizer().log_probs(samples) for weights in ("float", "int8"))
    for part in (slice(0, 500), slice(-500, None)):  # 20 s
        assert signal_to_noise_db(expected[part], exact[part]) > NUMBERS["float"]
        assert signal_to_noise_db(expected[part], rounded[part]) > NUMBERS["int8"]


def test_linear_attention_takes_nothing_for_a_longer_context(shaped: Callable[..., Engine]) -> None:
    short, long = (shaped("linear", max_cached_frames=cached) for cached in (4, 4000))
    assert short.stream(1).size == long.stream(1).size
    assert short.stream(1).size < shaped("pruned", max_cached_frames=200).stream(1).size


def test_heads_and_channels_that_fill_up_are_few(shaped_model: Callable[..., Path]) -> None:
    shapes = model_file.stored_shapes(checkpoint.load_info(shaped_model("local")).config.encoder)
    assert [(s.heads, s.ffn_in, s.ffn_out, s.channels) for s in shapes] == [(2, 16, 32, 16), (2, 48, 32, 32)]
    shapes = model_file.stored_shapes(checkpoint.load_info(shaped_model("pruned")).config.encoder)
    assert [(s.heads, s.ffn_in, s.ffn_out, s.channels) for s in shapes] == [(3, 32, 128, 64), (1, 48, 16, 48)]


# State


@pytest.mark.parametrize("model", ["en-small", "en-base"])
def test_a_state_in_bfloat16_takes_half_and_hears_the_same(model: str, speech: Samples, tmp_path: Path) -> None:
    engine.export(recognizer.MODELS / model / "model.safetensors", tmp_path / "m.kouling", state="bfloat16")
    exact, brief = recognizer.load(model), recognizer.load(tmp_path / "m.kouling")
    assert signal_to_noise_db(exact.log_probs(speech), brief.log_probs(speech)) > 30
    expected, found = hear(exact, speech, 1600), hear(brief, speech, 1600)
    assert [command.name for command in found] == [command.name for command in expected]


def test_a_state_in_bfloat16_of_heads_of_any_size(tiny: Callable[..., Engine], voice: Callable[..., Samples]) -> None:
    samples = voice(96000, 1)
    exact, brief = (tiny("float", state).recognizer().log_probs(samples) for state in ("float", "bfloat16"))
    assert 30 < signal_to_noise_db(exact, brief) < 90  # rounded, but no more


# Streams


@pytest.mark.parametrize("portion", [7, 160, 777, 4000])
def test_portions_make_no_difference(portion: int, speech: Samples) -> None:
    heard_by = recognizer.load("en-small")
    samples = speech[: 6 * 16000]
    expected = hear(heard_by, samples, len(samples))
    assert expected and hear(heard_by, samples, portion) == expected


def test_streams_of_one_model_do_not_hear_each_other(speech: Samples) -> None:
    model = Engine(recognizer.find_model("en-small"))
    parts = np.array_split(speech, 4)
    alone = [hear(model.recognizer(), part, 1600) for part in parts]
    streams = [model.recognizer() for _ in parts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: hear(pair[0], pair[1], 1600), zip(streams, parts, strict=True)))
    assert together == alone and any(alone)


def test_an_hour_later_it_still_hears_the_same(speech: Samples) -> None:
    heard_by = recognizer.load("en-small")
    first = hear(heard_by, speech, 16000)
    heard_by.reset()
    hiss = np.random.default_rng(0).integers(-30, 30, 60 * 16000).astype(np.int16)
    for _ in range(60):
        heard_by.accept(hiss)
    late = heard_by.accept(speech) + heard_by.finish()
    assert [command.name for command in late] == [command.name for command in first]
    shifts = [one.end_s - other.end_s for one, other in zip(late, first, strict=True)]
    assert shifts == pytest.approx([3600.0] * len(shifts), abs=0.01)


def test_samples_of_the_wrong_kind_are_refused() -> None:
    heard_by = recognizer.load("en-small")
    for samples in (np.zeros((2, 100), np.int16), np.zeros(100, np.int32), np.full(100, np.nan)):
        with pytest.raises(ValueError):
            heard_by.accept(samples)


# The file


def damaged(content: bytes, at: int, value: int, mend: bool) -> bytes:
    """With another number at a place, and a checksum that fits if it is to be mended."""
    changed = bytearray(content)
    struct.pack_into("<I", changed, at, value)
    if mend:
        struct.pack_into("<I", changed, 16, zlib.crc32(changed[20:]))
    return bytes(changed)


@pytest.fixture(scope="module")
def content() -> bytes:
    return (recognizer.MODELS / "en-small" / recognizer.ENGINE_FILE).read_bytes()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda c: b"", "this is no model of kouling"),
        (lambda c: b"KOULINGS" + c[8:], "this is no model of kouling"),
        (lambda c: c[:19], "the file is cut short"),
        (lambda c: c[:-1], "the file is cut short"),
        (lambda c: c[: len(c) // 2], "the file is cut short"),
        (lambda c: damaged(c, 8, 4, True), "the file was made by a newer version of kouling"),
        (lambda c: damaged(c, 8, 1, True), "the file was written by an older kouling; export the model again"),
        (lambda c: damaged(c, 5000, 7, False), "the file is damaged"),
        (lambda c: damaged(c, 20, 19, True), "the file is damaged"),  # how many linear layers
        (
            lambda c: damaged(c, struct.unpack_from("<I", c, 88)[0], 4, True),
            "the file is damaged",
        ),  # how they are stored
        (lambda c: damaged(c, struct.unpack_from("<I", c, 88)[0], 2, True), "the file is damaged"),  # the patch in int4
        (lambda c: damaged(c, 24, 4096, True), "the file is damaged"),  # mels
        (lambda c: damaged(c, 28, 65, True), "the file is damaged"),  # layers
        (lambda c: damaged(c, 32, 15, True), "the file is damaged"),  # head size
        (lambda c: damaged(c, 36, 48, True), "the file is damaged"),  # width
        (lambda c: damaged(c, 44, 1, True), "the file is damaged"),  # kind of attention
        (lambda c: damaged(c, 72, 65536, True), "the file is damaged"),  # units
        (lambda c: damaged(c, 84, 128, True), "the file is damaged"),  # where the feature tables begin
        (lambda c: damaged(c, 128, 2**28 + 4, True), "the file is damaged"),  # heads of the first layer
        (lambda c: damaged(c, 148, 2**32 - 16, True), "the file is damaged"),  # feed-forward of the second
        (lambda c: damaged(c, 156, 48, True), "the file is damaged"),  # channels of the second
        (lambda c: damaged(c, 88, 2**32 - 64, True), "the file is damaged"),  # where the weights begin
        (lambda c: damaged(c, 92, 64, True), "the file is damaged"),  # where the command set begins
    ],
)
def test_a_damaged_file_is_refused(
    content: bytes, damage: Callable[[bytes], bytes], complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.kouling"
    path.write_bytes(damage(content))
    with pytest.raises(ValueError) as caught:
        Engine(path)
    assert str(caught.value) == f"{path}: {complaint}"


def test_a_command_set_of_another_model_is_refused(tiny: Callable[..., Engine]) -> None:
    other = tiny("int8")
    packed = model_file.pack_commands(other.info, commands.every_unit(other.info.units))
    model = _engine.Model((recognizer.MODELS / "en-small" / recognizer.ENGINE_FILE).read_bytes())
    with pytest.raises(ValueError, match="the command set was made for another model"):
        _engine.Stream(model, packed, 1)


@pytest.mark.parametrize("frames", [0, 65])
def test_frames_at_once_are_bounded(content: bytes, frames: int) -> None:
    with pytest.raises(ValueError, match="a number is not among those allowed"):
        _engine.Stream(_engine.Model(content), None, frames)


def test_the_file_says_what_the_checkpoint_says(content: bytes) -> None:
    model = Engine(recognizer.find_model("en-small"))
    assert model.info == checkpoint.load_info(recognizer.MODELS / "en-small" / "model.safetensors")


def test_a_width_that_the_engine_does_not_run_is_refused(tiny_model: Path) -> None:
    info, weights = checkpoint.load(tiny_model / "model.safetensors")
    table: dict[str, Any] = {"hidden_size": 24}
    changed = recognizer.overlay(info.config, {"encoder": table})
    wider = checkpoint.ModelInfo(info.name, info.language, changed, info.units)
    with pytest.raises(ValueError, match="hidden_size is 24; the engine runs multiples of 16"):
        model_file.pack(wider, weights, commands.every_unit(info.units))
