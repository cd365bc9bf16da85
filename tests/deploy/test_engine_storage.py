"""How the C engine stores weights and state: blocks of zeros that are left out, and states of fewer bits."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio, checkpoint, commands, recognizer
from kouling.deploy import engine, model_file, state_scales, step
from kouling.deploy.engine import FILE, LIVE
from kouling.features import LogMel
from tests.shapes import SHAPES

_engine = pytest.importorskip("kouling._engine", reason="the engine was not built", exc_type=ImportError)

EXAMPLES = Path(__file__).parents[2] / "examples"
Floats = NDArray[np.float32]
Weights = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def speech() -> NDArray[np.int16]:
    """17 s of real words, in noise and without."""
    return np.concatenate([audio.read(path) for path in sorted(EXAMPLES.glob("*.ogg"))])


def without_blocks(weights: Weights, share: float) -> Weights:
    """With random blocks of 16 outputs and four inputs, as the engine stores them, that are all 0."""
    rng = np.random.default_rng(0)
    changed = dict(weights)
    for key, value in weights.items():
        if key.startswith("blocks.") and key.endswith(".weight") and value.ndim == 2:
            kept = rng.random((len(value) // 16, value.shape[1] // 4)) >= share
            changed[key] = value * np.kron(kept, np.ones((16, 4), value.dtype))
    return changed


def pack(model: str, share: float = 0.0, state: str = "float", scales: Weights | None = None) -> bytes:
    info, weights = checkpoint.load(recognizer.MODELS / model / "model.safetensors")
    whole = {**without_blocks(weights, share), **(scales or {})}
    return model_file.pack(info, whole, commands.every_unit(info.units), state=state)


def kinds(content: bytes) -> set[int]:
    """How its linear layers are stored."""
    (linears,), (at,) = struct.unpack_from("<I", content, 20), struct.unpack_from("<I", content, 88)
    return set(content[at : at + linears])


def log_probs(content: bytes, features: Floats, at_once: int) -> Floats:
    model = _engine.Model(content)
    subsampling = engine.ModelInfo.from_json(model.text).config.encoder.subsampling
    result: Floats = _engine.Stream(model, None, at_once).log_probs(features, subsampling)
    return result


def features_of(model: str, samples: NDArray[np.int16]) -> Floats:
    config = checkpoint.load_info(recognizer.MODELS / model / "model.safetensors").config
    features = LogMel(config.features).accept(samples)
    return features[: len(features) // config.encoder.streaming_step_size * config.encoder.streaming_step_size]


def signal_to_noise_db(expected: Floats, found: Floats) -> float:
    return float(10 * np.log10((expected**2).sum() / ((found - expected) ** 2).sum()))


# Blocks of zeros


@pytest.mark.parametrize("model", ["en-small", "en-base"])
def test_blocks_of_zeros_are_left_out_and_no_bit_is_another(
    model: str, speech: NDArray[np.int16], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = features_of(model, speech[: 5 * 16000])
    sparse = pack(model, 0.5)
    monkeypatch.setattr(model_file, "_without_zeros", lambda blocks: None)
    dense = pack(model, 0.5)
    assert model_file.KINDS["sparse"] in kinds(sparse) and model_file.KINDS["sparse"] not in kinds(dense)
    assert len(sparse) < 0.7 * len(dense)
    for at_once in (LIVE, FILE, 5):
        assert np.array_equal(log_probs(sparse, features, at_once), log_probs(dense, features, at_once))


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (0.2, False), (0.3, True), (1.0, True)])
def test_few_zeros_are_stored_as_they_are(share: float, expected: bool) -> None:
    content = pack("en-base", share)
    assert (model_file.KINDS["sparse"] in kinds(content)) == expected
    _engine.Model(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda first, kept: first.__setitem__(0, 1),  # what is kept begins behind its beginning
        lambda first, kept: first.__setitem__(1, first[2] + 1),  # and before the block before
        lambda first, kept: first.__setitem__(1, 2**32 - 1),
        lambda first, kept: first.__setitem__(-1, first[-1] + 1),  # more than there is
        lambda first, kept: first.__setitem__(-1, 2**32 - 1),
        lambda first, kept: kept.__setitem__(first[1] - 1, 32),  # inputs 128 to 131 of 128
        lambda first, kept: kept.__setitem__(-1, 65535),
        lambda first, kept: kept.__setitem__(1, kept[0]),  # twice the same
        lambda first, kept: kept.__setitem__(0, 31),  # not in their order
    ],
)
def test_what_is_kept_must_lie_within_a_layer(damage: Callable[[Any, Any], None]) -> None:
    content = bytearray(pack("en-base", 0.5))
    (at,) = struct.unpack_from("<I", content, 88)
    layer = min(i for i, kind in enumerate(content[at : at + 64]) if kind == model_file.KINDS["sparse"])
    assert layer == 3  # the first behind the stem, whose own end is where the first table of it begins
    at = content.index(_first_kept(), at)
    first = np.frombuffer(content, "<u4", 33, at)
    kept = np.frombuffer(content, "<u2", first[-1], at + 192)
    damage(first, kept)
    struct.pack_into("<I", content, 16, zlib.crc32(content[20:]))
    with pytest.raises(ValueError, match="the file is damaged"):
        _engine.Model(bytes(content))


def _first_kept() -> bytes:
    """Where the blocks of the first sparse layer of en-base begin, as they stand in the file."""
    info, weights = checkpoint.load(recognizer.MODELS / "en-base" / "model.safetensors")
    weight = without_blocks(weights, 0.5)["blocks.0.feed_forward_in.expand.weight"]
    kept = weight.reshape(32, 16, 32, 4).any(axis=(1, 3)).sum(axis=1)
    return np.cumsum([0, *kept]).astype("<u4").tobytes()


# State


@pytest.fixture(scope="module")
def scales(speech: NDArray[np.int16]) -> Callable[[str], Weights]:
    """scales(model): of a state in int8, measured on what it hears in `speech`."""
    made: dict[str, Weights] = {}

    def measure(model: str) -> Weights:
        if model not in made:
            info, weights = checkpoint.load(recognizer.MODELS / model / "model.safetensors")
            features = features_of(model, speech[: 10 * 16000])
            frames = len(features) // 4 // info.config.encoder.subsampling * info.config.encoder.subsampling
            parts = features[: 4 * frames].reshape(4, frames, -1)
            made[model] = {**state_scales.measure(info, weights, parts)}
        return made[model]

    return measure


@pytest.mark.parametrize(("model", "size", "least_db"), [("en-small", 0.6, 33), ("en-base", 0.4, 40)])
def test_a_state_in_int8_takes_a_quarter_and_hears_the_same(
    model: str, size: float, least_db: float, speech: NDArray[np.int16], scales: Callable[[str], Weights]
) -> None:
    files = {state: pack(model, state=state, scales=scales(model)) for state in model_file.STATES}
    sizes = {state: _engine.Stream(_engine.Model(content), None, LIVE).size for state, content in files.items()}
    assert sizes["int8"] < size * sizes["float"] and sizes["int8"] < sizes["bfloat16"]
    features = features_of(model, speech)
    exact, found = (log_probs(files[state], features, FILE) for state in ("float", "int8"))
    assert signal_to_noise_db(exact, found) > least_db
    assert (exact.argmax(axis=1) == found.argmax(axis=1)).mean() > 0.99


def test_what_is_rounded_once_does_not_drift(
    speech: NDArray[np.int16], voice: Callable[..., NDArray[np.int16]], scales: Callable[[str], Weights]
) -> None:
    """After an hour the log-probabilities are, bit for bit, those of a stream that heard the last seconds only."""
    content = pack("en-small", state="int8", scales=scales("en-small"))
    encoder = engine.ModelInfo.from_json(_engine.Model(content).text).config.encoder
    minute = features_of("en-small", np.concatenate([voice(43 * 16000, 3), speech[: 17 * 16000]]))
    stream = _engine.Stream(_engine.Model(content), None, FILE)
    for turn in range(60):
        late = stream.log_probs(np.roll(minute, 1000 * turn, axis=0), encoder.subsampling)
    step_size, frames = encoder.streaming_step_size, 40
    enough = int(encoder.receptive_field) + encoder.lookahead + frames * encoder.subsampling
    last = np.roll(minute, 1000 * turn, axis=0)[-(-(-enough // step_size) * step_size) :]
    assert np.array_equal(log_probs(content, last, FILE)[-frames:], late[-frames:])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_state_in_int8_of_blocks_of_any_shape(
    shape: str, shaped_model: Callable[..., Path], voice: Callable[..., NDArray[np.int16]], tmp_path: Path
) -> None:
    """Scales are folded into weights of padded heads and channels, and of linear attention, which has those of its
    convolution only."""
    info, weights = checkpoint.load(shaped_model(shape))
    samples = voice(96000, 1)
    features = LogMel(info.config.features).accept(samples)
    features = features[: len(features) // info.config.encoder.subsampling * info.config.encoder.subsampling]
    own = state_scales.without_scales(weights)
    measured = {**own, **state_scales.measure(info, own, features[None])}
    files = {}
    for state in ("float", "int8"):
        files[state] = model_file.pack(info, measured, commands.every_unit(info.units), "float", state)
    exact, found = (log_probs(content, features[: len(features) // 8 * 8], FILE) for content in files.values())
    assert 25 < signal_to_noise_db(exact, found) < 80  # rounded, but no more


def test_scales_round_with_the_least_error() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((4000, 3)) * [1.0, 300.0, 1e-3]
    numbers[0, 0] = 6.0  # an outlier, which costs less cut off than the others rounded for its sake
    scales = state_scales.best_scales(numbers)
    assert scales[0] < 6.0 / 127 and scales == pytest.approx(np.abs(numbers).max(axis=0) / 127, rel=0.61)

    def error(scale: Any) -> Any:
        rounded = np.clip(np.rint(numbers / scale), -127, 127) * scale
        return np.square(rounded - numbers).sum(axis=0)

    for factor in (0.8, 0.9, 1.1, 1.2):
        assert (error(scales) <= 1.03 * error(factor * scales)).all()
    assert (state_scales.best_scales(np.zeros((5, 2))) > 0).all()


def test_other_runtimes_leave_scales_alone(scales: Callable[[str], Weights]) -> None:
    info, weights = checkpoint.load(recognizer.MODELS / "en-small" / "model.safetensors")
    step.build(info, {**weights, **scales("en-small")})
    assert pack("en-small", scales=scales("en-small")) == pack("en-small")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"state.0.keys": None}, "a state in int8 needs state.0.keys, which `state_scales.measure` finds"),
        ({"state.1.conv": None}, "a state in int8 needs state.1.conv, which `state_scales.measure` finds"),
        ({"state.1.values": [0.0]}, "state.1.values is no scale; allowed: 1 numbers, above 0"),
        ({"state.1.values": [np.nan]}, "state.1.values is no scale; allowed: 1 numbers, above 0"),
        ({"state.0.conv": [1.0]}, "state.0.conv is no scale; allowed: 64 numbers, above 0"),
        ({"state.0.middle": [np.inf] * 64}, "state.0.middle is no scale; allowed: 64 numbers, finite"),
    ],
)
def test_without_scales_a_state_in_int8_is_refused(
    changes: dict[str, Any], complaint: str, scales: Callable[[str], Weights]
) -> None:
    changed = {**scales("en-small"), **{key: np.array(value, np.float32) for key, value in changes.items() if value}}
    for key in [key for key, value in changes.items() if value is None]:
        del changed[key]
    with pytest.raises(ValueError) as caught:
        pack("en-small", state="int8", scales=changed)
    assert str(caught.value) == f"en-small: {complaint}"


def test_silent_calibration_is_measured_and_none_is_refused() -> None:
    info, weights = checkpoint.load(recognizer.MODELS / "en-small" / "model.safetensors")
    mels = info.config.features.num_mels
    silent = state_scales.measure(info, weights, np.zeros((2, 60, mels), np.float32))
    assert all(np.isfinite(value).all() for value in silent.values())
    with pytest.raises(ValueError, match=r"en-small: calibration features are \(0, 60, 64\)"):
        state_scales.measure(info, weights, np.zeros((0, 60, mels), np.float32))
