"""The shipped models hear the example recordings: real people, whom no model was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kouling
from kouling import audio, checkpoint, recognizer
from kouling.deploy.onnx import OnnxRunner
from kouling.measure import noise, stream

EXAMPLES = Path(__file__).parents[1] / "examples"
MODELS = ["en-base", "en-small", "en-small-npu"]
MODELS += ["en-commands", "en-commands-large", "en-commands-500kb", "en-commands-250kb", "en-commands-tiny"]
MODELS += ["zh-commands", "zh-commands-large", "zh-commands-tiny"]
SAID = {
    "en-orders.ogg": ("en-commands", ["go", "left", "stop", "yes"]),
    "en-digits-in-noise.ogg": ("en-commands", ["three", "one", "four", "one", "five"]),
    "zh-words.ogg": ("zh-commands", ["北京", "背景", "语音", "Open", "上海", "商行"]),
}


@pytest.mark.parametrize("file", SAID)
def test_examples_are_heard(file: str) -> None:
    model, said = SAID[file]
    heard = stream.hear(kouling.load(model), audio.read(EXAMPLES / file))
    assert [command.name for command in heard] == said
    assert all(before.end_s < after.end_s for before, after in zip(heard, heard[1:], strict=False))


def test_words_that_are_no_command_are_not_heard() -> None:
    assert (
        stream.hear(kouling.load("en-commands"), audio.read(EXAMPLES / "en-not-a-command.ogg")) == []
    )  # happy, Sheila, dog


@pytest.mark.parametrize("gain_db", [-20.0, 10.0])
@pytest.mark.parametrize("file", ["en-orders.ogg", "zh-words.ogg"])
def test_the_level_does_not_matter(file: str, gain_db: float) -> None:
    model, said = SAID[file]
    samples = noise.to_int16(audio.read(EXAMPLES / file).astype(np.float32), gain_db)
    assert [command.name for command in stream.hear(kouling.load(model), samples)] == said


def test_phrases_of_several_words_are_heard_by_a_model_of_single_words() -> None:
    recognizer = kouling.load("en-commands", EXAMPLES / "robot.toml")
    heard = stream.hear(recognizer, audio.read(EXAMPLES / "en-orders.ogg"))
    assert [command.name for command in heard] == ["turn_left", "halt", "answer_yes"]


@pytest.mark.parametrize("color", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("level", [100.0, 12000.0])
@pytest.mark.parametrize("model", MODELS)
def test_steady_noise_is_silence_at_any_volume(model: str, level: float, color: float) -> None:
    samples = noise.to_int16(noise.colored_noise(10 * 16000, color, 1) * np.float32(level))
    assert stream.hear(kouling.load(model), samples) == []


@pytest.mark.parametrize("model", MODELS)
def test_the_step_is_that_of_the_checkpoint(model: str) -> None:
    torch = pytest.importorskip("torch", reason="the checkpoint runs in PyTorch", exc_type=ImportError)
    from kouling.deploy import step

    path = recognizer.MODELS / model / recognizer.STEP_FILE
    info, encoder = step.load(path.with_name("model.safetensors"))
    runner = OnnxRunner(path)
    assert checkpoint.load_info(path.with_name("model.safetensors")) == runner.info
    size = info.config.encoder.streaming_step_size
    features = np.random.default_rng(0).uniform(0, 3, (60 * size, info.config.features.num_mels)).astype(np.float32)
    with torch.no_grad():
        expected = encoder(torch.from_numpy(features)[None], encoder.initial_state())[0][0].numpy()
    state, found = runner.initial_state(), []
    for start in range(0, len(features), size):
        log_probs, state = runner.step(features[start : start + size], state)
        found.append(log_probs)
    assert np.abs(np.exp(np.concatenate(found)) - np.exp(expected)).max() < 1e-4


def test_every_shipped_model_has_its_card() -> None:
    assert set(kouling.model_names()) == set(MODELS)
    for name in kouling.model_names():
        assert name in recognizer.find_model(name).with_name("card.md").read_text(encoding="utf-8")
