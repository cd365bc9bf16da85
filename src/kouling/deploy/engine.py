"""The C engine: a recogniser that does all in C, and the export of a checkpoint to its model file. Neither needs torch.

The engine is the module `kouling._engine`, built from `engine/` when kouling is installed. Where there was no compiler
it is missing, and models run in ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling import checkpoint
from kouling.checkpoint import ModelInfo
from kouling.commands import Command, CommandSet, joined
from kouling.deploy import model_file
from kouling.recognizer import Recognizer, as_int16, chosen_commands, own_commands
from kouling.slot_types import Value

LIVE, FILE = 1, 16  # KOULING_LIVE, KOULING_FILE: encoder frames computed at once


class Engine:
    """A model in the engine; any number of streams may share it, also on different threads."""

    def __init__(self, path: Path) -> None:
        """Raises: ValueError where the file is no model of the engine, or there is no engine; FileNotFoundError."""
        try:
            from kouling import _engine
        except ImportError:
            raise ValueError(
                f"{path}: the C engine was not built on installing; install a C++ compiler, then kouling anew"
            ) from None
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such model")
        self._engine = _engine
        try:
            self.model = _engine.Model(path.read_bytes())
            self.info = ModelInfo.from_json(self.model.text)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def recognizer(self, command_set: CommandSet | None = None) -> EngineRecognizer:
        """A stream of its own. command_set: what to listen for; the model's own commands if left out."""
        packed = None if command_set is None else model_file.pack_commands(self.info, command_set)
        stream = self.stream(FILE, packed)
        return EngineRecognizer(self.info, command_set or own_commands(self.info), stream)

    def stream(self, at_once: int, packed: bytes | None = None) -> Any:
        """A stream of the C engine itself, computing up to `at_once` encoder frames: LIVE, FILE, or another number.

        packed: a compiled command set; the model's own if left out.
        """
        return self._engine.Stream(self.model, packed, at_once)


class EngineRecognizer(Recognizer):
    """One stream of audio, all of it in C; the GIL is released while samples are worked on."""

    def __init__(self, info: ModelInfo, command_set: CommandSet, stream: Any) -> None:
        self.info = info
        self.command_set = command_set
        self._stream = stream

    def reset(self) -> None:
        self._stream.reset()

    def accept(self, samples: NDArray[Any]) -> list[Command]:
        return self._commands(self._stream.accept(np.ascontiguousarray(as_int16(samples))))

    def finish(self) -> list[Command]:
        return self._commands(self._stream.finish())

    def log_probs(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        self.reset()
        encoder = self.info.config.encoder
        features = self._stream.features(np.ascontiguousarray(as_int16(samples)))
        whole = np.concatenate([features, self.ending(len(features))])
        result: NDArray[np.float32] = self._stream.log_probs(whole, encoder.subsampling)
        self.reset()
        return result

    def hidden(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """(N, width): what the last block says in each encoder frame of a whole recording."""
        self.reset()
        features = self._stream.features(np.ascontiguousarray(as_int16(samples)))
        whole = np.concatenate([features, self.ending(len(features))])
        result: NDArray[np.float32] = self._stream.hidden(whole, self.info.config.encoder.subsampling)
        self.reset()
        return result

    def _commands(self, events: list[tuple[int, float, float, float, list[tuple[str, Value, float]]]]) -> list[Command]:
        specs = self.command_set.commands
        return [
            Command(specs[index].name, round(start_s, 3), round(end_s, 3), round(confidence, 4), *joined(slots))
            for index, start_s, end_s, confidence, slots in events
        ]


def export(
    checkpoint_path: Path,
    output: Path,
    weights: str | None = None,
    command_set: Path | None = None,
    state: str = "float",
) -> None:
    """Write a checkpoint as a model file of the engine, with the commands that it listens for: those of a TOML file, or
    the model's own. weights: "int8", "int4" or "float", the checkpoint's own if left out (see
    `model_file.pack`); state, what a stream remembers: "float", "bfloat16", or "int8" where the checkpoint has its
    scales (`state_scales.measure`).

    Raises: ValueError where the checkpoint or the command set is unusable, the model's shape is none that the engine
    runs, or there are no scales; OSError where the file cannot be written.
    """
    info, tensors = checkpoint.load(checkpoint_path)
    chosen = chosen_commands(info, command_set)
    checkpoint.write_whole(output, model_file.pack(info, tensors, chosen, weights, state))
