"""The recogniser: samples in, commands out. Features, one acoustic step on any runtime, decoder."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from kouling import commands, templates
from kouling.checkpoint import ModelInfo
from kouling.commands import Command, CommandSet
from kouling.config import overlay, read_toml
from kouling.decoder import Decoder, DecoderConfig
from kouling.features import LogMel

logger = logging.getLogger(__name__)

MODELS = Path(__file__).parent / "models"
DEFAULT_MODEL = "en-commands"
SPEECH_MODEL = "en-speech"  # knows the sounds of speech and no words: of enrolled commands; for the C engine only
ENGINE_FILE = "model.kouling"  # of the C engine
BUNDLE_FILE = "model.json"  # of a bundle, an export for another runtime; see deploy/bundle.py
STEP_FILE = "step.onnx"  # of ONNX Runtime, where the engine was not built
# Silence that ends a recording, besides the lookahead: the encoder may say a word a little after it was spoken.
FLUSH_S = 0.8
# Encoder frames computed in one call where many are waiting (files); bounds memory whatever the portion.
MAX_FRAMES_PER_CALL = 64


class Runner(Protocol):
    """The acoustic model on some runtime. The state is a value: a runner may serve many streams."""

    info: ModelInfo

    def initial_state(self) -> Any: ...

    def step(self, features: NDArray[np.float32], state: Any) -> tuple[NDArray[np.float32], Any]:
        """features: (T, M), T a multiple of the step -> log-probabilities (N, V), next state."""
        ...


class Recognizer:
    """One stream of audio. `accept` it in any portions; commands come as soon as they are decided."""

    def __init__(self, runner: Runner, command_set: CommandSet | None = None) -> None:
        """command_set: what to listen for; the model's own commands if left out.

        Raises: ValueError where the model's decoder settings are unusable, and for enrolled commands, which only the C
        engine hears.
        """
        self.runner = runner
        self.info = runner.info
        self.command_set = command_set or own_commands(self.info)
        for spec in self.command_set.commands:
            if spec.enrolled:
                raise ValueError(
                    f"command {spec.name!r} was enrolled, and only the C engine hears such; use a .kouling model"
                )
        self._log_mel = LogMel(self.info.config.features)
        self._decoder = decoder_of(self.info, self.command_set)
        before = priming(self.info)
        self._primed = runner.initial_state()
        if len(before):
            self._primed = runner.step(before, self._primed)[1]
        self.reset()

    def reset(self) -> None:
        """Forget everything heard; the next sample is at 0 s."""
        self._log_mel.reset()
        self._decoder.reset()
        self._state = self._primed
        self._features = np.zeros((0, self.info.config.features.num_mels), dtype=np.float32)

    def accept(self, samples: NDArray[Any]) -> list[Command]:
        """samples: mono at 16 kHz, int16, or float in [-1, 1]; any number -> the commands decided by them.

        Times are in seconds since the first sample. Raises: ValueError for another dtype, shape, or NaN.
        """
        heard = []
        for log_probs in self._log_probs(self._log_mel.accept(as_int16(samples))):
            heard += self._decoder.accept(log_probs)
        return heard

    def finish(self) -> list[Command]:
        """The stream has ended: decide what is still open. Then `reset` before the next one."""
        heard = []
        for log_probs in self._log_probs(self.ending(len(self._features))):
            heard += self._decoder.accept(log_probs)
        return heard + self._decoder.flush()

    def log_probs(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """(N, V) of a whole recording, flush included; for measuring. Leaves the recogniser reset."""
        self.reset()
        features = self._log_mel.accept(as_int16(samples))
        result = np.concatenate([*self._log_probs(features), *self._log_probs(self.ending(len(self._features)))])
        self.reset()
        return result

    def ending(self, waiting: int) -> NDArray[np.float32]:
        """(T, M) the silence that ends a recording, up to a whole step with the feature frames that are waiting."""
        config = self.info.config
        step = config.encoder.streaming_step_size
        frames = config.encoder.lookahead + round(FLUSH_S * 1000 / config.features.frame_shift_ms) + step
        frames -= (waiting + frames) % step
        return np.zeros((frames, config.features.num_mels), dtype=np.float32)

    def _log_probs(self, features: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Run the encoder over whole steps; what is left waits for the next portion."""
        encoder = self.info.config.encoder
        self._features = np.concatenate([self._features, features]) if len(self._features) else features
        step = encoder.streaming_step_size
        most = max(MAX_FRAMES_PER_CALL // encoder.frames_per_step, 1) * step
        while len(self._features) >= step:
            size = min(len(self._features) // step * step, most)
            taken, self._features = self._features[:size], self._features[size:]
            log_probs, self._state = self.runner.step(taken, self._state)
            yield log_probs


def own_commands(info: ModelInfo) -> CommandSet:
    """What a model listens for where nothing else is asked: the set it was taught, or every word that it knows.

    Raises: ValueError where there is no word."""
    if info.commands:
        return parsed(dict(info.commands), info, info.name)
    return commands.every_unit(info.units)


def chosen_commands(info: ModelInfo, command_set: str | Path | None) -> CommandSet:
    """The set of a TOML file, or the model's own where none is given. Raises: ValueError as `commands.load`."""
    return parsed(read_toml(Path(command_set)), info, str(command_set)) if command_set else own_commands(info)


def parsed(table: dict[str, Any], info: ModelInfo, name: str) -> CommandSet:
    """A table of commands for a model; `name` says in errors where it came from. Raises: ValueError as
    `commands.parse`."""
    return commands.parse(table, info.units, name, bool(info.decoder.get("sentences", False)))


def decoder_of(info: ModelInfo, command_set: CommandSet) -> Decoder:
    """The decoder of a model's stream. Raises: ValueError as `overlay_decoder`, and for a command that was enrolled
    with another model."""
    for spec in command_set.commands:
        if spec.enrolled:
            templates.check(info, spec.name, spec.enrolled)
    config = info.config
    first_frame_s = -config.encoder.lookahead * config.features.frame_shift_ms / 1000
    return Decoder(info.units, command_set, overlay_decoder(info), config.encoder_frame_s, first_frame_s)


def overlay_decoder(info: ModelInfo) -> DecoderConfig:
    """The decoder settings of a model. Raises: ValueError for an unknown or impossible one."""
    table: dict[str, Any] = {"max_command_duration_s": info.config.max_command_duration_s, **info.decoder}
    return overlay(DecoderConfig(), table, "decoder.")


def priming(info: ModelInfo) -> NDArray[np.float32]:
    """(T, M) what an encoder hears before a stream begins, whole steps: there is then no beginning to take bearings
    from. Raises: ValueError as `overlay_decoder`."""
    config, settings = info.config, overlay_decoder(info)
    step = config.encoder.streaming_step_size
    frames = round(settings.priming_s * 1000 / config.features.frame_shift_ms) // step * step
    return np.full((frames, config.features.num_mels), settings.priming_level, dtype=np.float32)


def as_int16(samples: NDArray[Any]) -> NDArray[np.int16]:
    """Raises: ValueError for anything but a vector of int16, or of floats without NaN."""
    if samples.ndim != 1:
        raise ValueError(f"expected mono samples, a vector; got shape {samples.shape}")
    if samples.dtype == np.int16:
        return samples
    if samples.dtype.kind != "f":
        raise ValueError(f"expected int16 samples or floats in [-1, 1], got {samples.dtype}")
    if not np.isfinite(samples).all():
        raise ValueError("expected finite samples, got NaN or infinity")
    return np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)


def model_names() -> list[str]:
    """The models of words that are installed with kouling, the default first."""
    found = sorted(path.parent.name for path in MODELS.glob(f"*/{STEP_FILE}"))
    return sorted(found, key=lambda name: (name != DEFAULT_MODEL, name))


def find_model(model: str | Path) -> Path:
    """The file of an installed model's name, of a folder that `kouling train` or `kouling export` made, or a path as it
    is. In a folder it is the engine's, where the engine was built and there is one.

    Raises: ValueError listing the models there are.
    """
    path = MODELS / str(model) if str(model) in (*model_names(), SPEECH_MODEL) else Path(model)
    built = importlib.util.find_spec("kouling._engine") is not None
    for name in (ENGINE_FILE, STEP_FILE, BUNDLE_FILE) if built else (STEP_FILE, BUNDLE_FILE):
        if (path / name).is_file():
            if not built and (path / ENGINE_FILE).is_file():
                logger.warning("kouling: the C engine was not built on installing (no compiler?); using ONNX Runtime")
            return path / name
    if path.is_file():
        if path.suffix == ".safetensors":
            raise ValueError(
                f"{path} is a checkpoint; make it run with: kouling export {path} --target engine -o MODEL.kouling"
            )
        return path
    installed = [*model_names(), *(path.name for path in MODELS.glob(SPEECH_MODEL))]
    raise ValueError(f"no model {str(model)!r}; installed: {', '.join(installed) or 'none'}; or give the path of one")


@runtime_checkable
class Engine(Protocol):
    """A runtime that does all, features and decoder too."""

    info: ModelInfo

    def recognizer(self, command_set: CommandSet | None = None) -> Recognizer: ...


def load_runner(model: str | Path = DEFAULT_MODEL) -> Runner | Engine:
    """The model on its runtime: the C engine for `.kouling`, a bundle's own for its `model.json`, else ONNX Runtime.

    Raises: ValueError where there is none of that name, or it is unusable.
    """
    path = find_model(model)
    if path.suffix == Path(ENGINE_FILE).suffix:
        from kouling.deploy.engine import Engine

        return Engine(path)
    if path.name == BUNDLE_FILE:
        from kouling.deploy import bundle

        return bundle.load(path.parent)
    from kouling.deploy.onnx import OnnxRunner

    return OnnxRunner(path)


def load(model: str | Path = DEFAULT_MODEL, command_set: str | Path | None = None) -> Recognizer:
    """A recogniser for an installed model's name or a path, and a TOML file of commands.

    Raises: ValueError, one line, where the model or the command set is missing or unusable.
    """
    runner = load_runner(model)
    return recognizer_of(runner, chosen_commands(runner.info, command_set))


def recognizer_of(runner: Runner | Engine, command_set: CommandSet | None = None) -> Recognizer:
    """A stream of a model that is loaded. command_set: the model's own commands if left out."""
    return runner.recognizer(command_set) if isinstance(runner, Engine) else Recognizer(runner, command_set)
