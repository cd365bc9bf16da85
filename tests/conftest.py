"""What several tests share: one thread, a voice of noise and tones, and a small body of three "words" on disk."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio
from kouling.checkpoint import ModelInfo
from kouling.commands import BLANK, UNKNOWN
from kouling.config import Config, FeatureConfig
from kouling.features import mel_filters
from tests.shapes import SHAPES, SMALL_ENCODER, save_random

SAMPLE_RATE_HZ = 16000


def pytest_configure(config: pytest.Config) -> None:
    """Workers of pytest-xdist ignore Ctrl-C, which some tests send."""
    if hasattr(config, "workerinput"):
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The tensors here are too small to share, and one thread makes the same sums in the same order every time."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def voice() -> Callable[[int, int], NDArray[np.int16]]:
    """voice(num_samples, seed): noise whose loudness and tones change every 0.1 s, over most of the 16 bits."""

    def make(num_samples: int, seed: int) -> NDArray[np.int16]:
        rng = np.random.default_rng(seed)
        time_s = np.arange(num_samples) / SAMPLE_RATE_HZ
        parts = np.arange(num_samples) // 1600
        level = 10 ** rng.uniform(0.5, 3.3, parts[-1] + 1 if num_samples else 0)
        pitch_hz = rng.uniform(80, 4000, len(level))
        tone = np.sin(2 * np.pi * pitch_hz[parts] * time_s)
        samples = level[parts] * (2 * tone + rng.standard_normal(num_samples))
        return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)

    return make


WORDS = {"rise": (300.0, 3000.0), "fall": (3000.0, 300.0), "hum": (500.0, 500.0), "other": (1500.0, 1200.0)}


def chirp(label: str, rng: np.random.Generator) -> NDArray[np.int16]:
    """0.35 s of a tone that glides as the label says, somewhere in 0.5 s of faint noise."""
    first_hz, last_hz = np.array(WORDS[label]) * rng.uniform(0.9, 1.1)
    length = int(0.35 * SAMPLE_RATE_HZ)
    phase = 2 * np.pi * np.cumsum(np.linspace(first_hz, last_hz, length)) / SAMPLE_RATE_HZ
    samples = rng.standard_normal(SAMPLE_RATE_HZ // 2) * 20
    start = int(rng.integers(len(samples) - length))
    samples[start : start + length] += rng.uniform(3000, 9000) * np.sin(phase) * np.hanning(length)
    return np.rint(samples).astype(np.int16)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """words/{rise,fall,hum,other}/*.wav, 20 each; noise/hiss/*.wav; talk/anyone/*.wav: 3 s with pauses."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(7)

    def put(name: str, samples: NDArray[np.int16]) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(folder / name, samples)

    for label in WORDS:
        for take in range(20):
            put(f"words/{label}/{take:02d}.wav", chirp(label, rng))
    for take in range(3):
        put(f"noise/hiss/{take}.wav", (rng.standard_normal(SAMPLE_RATE_HZ) * 500).astype(np.int16))
        talk = [part for _ in range(6) for part in (chirp("other", rng), np.zeros(2400, np.int16))]
        put(f"talk/anyone/{take}.wav", np.concatenate(talk))
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the simulated rooms are there already: decaying noise of energy 1."""
    augment = pytest.importorskip(
        "kouling.train.augment", reason="training needs torch, scipy and rich", exc_type=ImportError
    )
    folder = tmp_path_factory.mktemp("cache")
    rooms = np.random.default_rng(3).standard_normal((augment.NUM_ROOMS, 200)) * 0.97 ** np.arange(200)
    rooms /= np.sqrt(np.sum(rooms**2, axis=1, keepdims=True))
    np.save(folder / f"rooms-{augment.NUM_ROOMS}.npy", rooms.astype(np.float32))
    return folder


@pytest.fixture(scope="session")
def tiny_recipe() -> Callable[..., Any]:
    """tiny_recipe(**entries): a recipe for the bodies of `data`, small enough to be trained in a second."""
    from kouling.train import recipe

    words = {"path": "words", "part": "both", "valid_percent": 30}
    table: dict[str, Any] = {
        "name": "tiny",
        "units": ["rise", "fall", "hum"],
        "config": {
            "features": {"num_mels": 16},
            "encoder": {
                "layers": 2,
                "attention_heads": 2,
                "hidden_size": 24,
                "conv_kernel_size": 5,
                "ffn_expansion": 2,
                "stem_channels": 6,
                "subsampling": 4,
                "streaming_chunk_size": 8,
                "streaming_step_size": 4,
                "max_cached_frames": 40,
            },
        },
        "scenes": [{"slots": 1, "slot_s": 0.5, "share": 0.6}, {"slots": 2, "slot_s": 0.5, "share": 0.4}],
        "source": [
            words,
            {"path": "talk", "use": "speech"},
            {"path": "noise", "use": "noise", "part": "both", "valid_percent": 50},
        ],
        "augment": {"mel_mask_bands": 2, "time_mask_s": 0.05, "snr_low_db": 10.0},
        "training": {
            "epochs": 3,
            "batch_s": 8.0,
            "warmup_epochs": 0.5,
            "dropout": 0.1,  # random, so that a resumed run has something to repeat
            "ema_epochs": 0.3,
            "reuse": 2,
            "threads": 1,
        },
    }
    return lambda **entries: recipe.from_dict({**table, **entries})


TONES_HZ = {"low": 400.0, "middle": 1100.0, "high": 3000.0}


class FakeRunner:
    """A model whose words are tones: a unit is likely while its band is loud. It says them `delay_s` late."""

    def __init__(self, delay_s: float = 0.0, **decoder: Any) -> None:
        self.config = Config(features=FeatureConfig(num_mels=16), encoder=SMALL_ENCODER)
        self.info = ModelInfo("fake", "en", self.config, (BLANK, UNKNOWN, *TONES_HZ), decoder)
        bins = [round(hz * 512 / SAMPLE_RATE_HZ) for hz in TONES_HZ.values()]
        self.bands = mel_filters(self.config.features)[bins].argmax(axis=1)
        self.late_frames = SMALL_ENCODER.lookahead + round(delay_s * 100)
        self.calls: list[int] = []  # encoder frames of each step

    def initial_state(self) -> NDArray[np.float32]:
        return np.zeros((self.late_frames, 16), dtype=np.float32)

    def step(
        self, features: NDArray[np.float32], state: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        assert len(features) and len(features) % SMALL_ENCODER.streaming_step_size == 0
        frames = np.concatenate([state, features])
        loudness = frames[: len(features)].reshape(-1, SMALL_ENCODER.subsampling, 16).mean(axis=1)
        scores = np.zeros((len(loudness), len(self.info.units)))
        scores[:, 1] = -9.0
        scores[:, 2:] = 20 * (loudness[:, self.bands] - 1.8)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        self.calls.append(len(scores))
        return scores.astype(np.float32), frames[len(features) :]


@pytest.fixture
def fake_runner() -> Callable[..., FakeRunner]:
    """fake_runner(delay_s, **decoder settings): a model that hears `tune`."""
    return FakeRunner


@pytest.fixture(scope="session")
def tune() -> Callable[..., NDArray[np.int16]]:
    """tune("low", "", "high"): for each word 0.2 s of its tone in the middle of `slot_s` seconds; "" is silence."""

    def make(*words: str, slot_s: float = 0.5) -> NDArray[np.int16]:
        time_s = np.arange(SAMPLE_RATE_HZ // 5) / SAMPLE_RATE_HZ
        samples = np.zeros((len(words), round(slot_s * SAMPLE_RATE_HZ)), dtype=np.int16)
        first = (samples.shape[1] - len(time_s)) // 2
        for slot, word in zip(samples, words, strict=True):
            if word:
                tone = 8000 * np.sin(2 * np.pi * TONES_HZ[word] * time_s) * np.hanning(len(time_s)) ** 0.5
                slot[first : first + len(time_s)] = np.rint(tone)
        return samples.ravel()

    return make


@pytest.fixture(scope="session")
def shaped_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """shaped_model(shape, **more): the path of a checkpoint of random weights, of one of SHAPES and more settings."""
    made: dict[str, Path] = {}

    def make(shape: str, **more: Any) -> Path:
        key = f"{shape} {more}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp("shaped") / "model.safetensors"
            save_random(made[key], replace(SMALL_ENCODER, **{**SHAPES[shape], **more}))
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model.safetensors` and `step.onnx`: an encoder of random weights, loud in its opinions.

    `export.txt` is what `kouling export` had to say.
    """
    pytest.importorskip("onnxscript", reason="torch exports through onnxscript", exc_type=ImportError)
    folder = tmp_path_factory.mktemp("tiny")
    save_random(folder / "model.safetensors", SMALL_ENCODER)
    command = [sys.executable, "-W", "error", "-m", "kouling", "export", folder / "model.safetensors"]
    command += ["--target", "onnx", "-o", folder / "step.onnx"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "export.txt").write_text(done.stdout + done.stderr)
    return folder
