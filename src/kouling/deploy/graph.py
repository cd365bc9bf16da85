"""What goes to an exporter, and what comes back to run: the same for every runtime and NPU.

An export is a folder, a *bundle* (see bundle.py). Its `model.json` describes the inputs and outputs of the exported
step, so that one `BundleRunner` runs them all: each runtime gives only a function from tensors to tensors.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.checkpoint import ModelInfo
from kouling.recognizer import BUNDLE_FILE

FLOAT, DYNAMIC, STATIC = SCHEMES = ("float", "dynamic", "static")

Array = NDArray[Any]
Call = Callable[[Sequence[Array]], list[Array]]  # tensors as the runtime has them -> tensors


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of the exported step. A number q stands for scale * (q - zero_point)."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    scale: float = 0.0  # 0: a float
    zero_point: int = 0

    def stored(self, values: Array) -> Array:
        """Floats as the runtime has them."""
        if not self.scale:
            return np.ascontiguousarray(values, dtype=self.dtype)
        limits = np.iinfo(self.dtype)
        rounded = np.rint(values / self.scale) + self.zero_point
        result: Array = np.clip(rounded, limits.min, limits.max).astype(self.dtype)
        return result

    def floats(self, stored: Array) -> NDArray[np.float32]:
        if not self.scale:
            return stored.astype(np.float32, copy=False)
        return (stored.astype(np.float32) - self.zero_point) * np.float32(self.scale)

    @property
    def quantisation(self) -> tuple[str, float, int]:
        return self.dtype, float(np.float32(self.scale)), self.zero_point


@dataclass(frozen=True)
class Placed:
    """Operators of one kind in an export, and what runs them."""

    kind: str
    count: int
    on: str  # NPU, CPU, or what a runtime calls its fast path
    why: str = ""  # not on the fast path


def on_cpu(kinds: Counter[str]) -> tuple[Placed, ...]:
    """Operators by kind, the most frequent first, where all run on the CPU."""
    return tuple(Placed(kind, count, "CPU") for kind, count in kinds.most_common())


@dataclass(frozen=True)
class Written:
    """What a converter left in a folder."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    placed: tuple[Placed, ...] = ()
    compiled: str = ""  # the file for the device, where `file` runs on a host


@dataclass(frozen=True)
class Description:
    """`model.json`: the model, and the step that a bundle's file computes. Inputs are features and state tensors;
    outputs logits and the next state tensors, in the same order."""

    info: ModelInfo
    target: str
    scheme: str
    file: str
    frames: int  # T, feature frames of a call
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    initial: str = "state.bin"  # of the state tensors, one behind the other, as the runtime has them

    def to_json(self) -> str:
        plain = {key: value for key, value in asdict(self).items() if key != "info"}
        return json.dumps({**plain, "info": json.loads(self.info.to_json())}, indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def load(path: Path) -> Description:
        """Raises: ValueError where the file is no description; FileNotFoundError."""
        try:
            raw = json.loads(path.read_text())
            specs = {
                key: tuple(TensorSpec(**{**each, "shape": tuple(each["shape"])}) for each in raw[key])
                for key in ("inputs", "outputs")
            }
            return Description(**{**raw, **specs, "info": ModelInfo.from_json(json.dumps(raw["info"]))})
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: no description of an exported model ({error})") from None

    @property
    def copied(self) -> bool:
        """Whether each state tensor that comes out goes in again as it is, without a change of scale."""
        pairs = zip(self.inputs[1:], self.outputs[1:], strict=True)
        return all(given.quantisation == made.quantisation for given, made in pairs)


@contextmanager
def quiet(done: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Exporters print, log and warn from Python and from C as they like; none of it meanwhile. done: gets all that was
    printed, afterwards."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    level = logging.root.manager.disable
    with tempfile.TemporaryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, before in enumerate(kept, start=1):
                os.dup2(before, number)
                os.close(before)
            logging.disable(level)
            file.seek(0)
            done(file.read().decode(errors="replace"))


class BundleRunner:
    """The exported step on its runtime, as a `Runner`: what a stream remembers stays as the runtime has it."""

    def __init__(self, folder: Path, call: Call) -> None:
        self.description = Description.load(folder / BUNDLE_FILE)
        self.info = self.description.info
        self._call = call
        self._initial = read_state(self.description, folder)

    def initial_state(self) -> list[Array]:
        return list(self._initial)

    def step(self, features: NDArray[np.float32], state: list[Array]) -> tuple[NDArray[np.float32], list[Array]]:
        """features: (T, M), T a multiple of the step -> log-probabilities (N, V), next state.

        Raises: ValueError where T is no multiple of the frames that the file was made for.
        """
        told = self.description
        if len(features) % told.frames:
            raise ValueError(f"{told.file} takes {told.frames} feature frames at once; given: {len(features)}")
        found = []
        for start in range(0, len(features), told.frames):
            given = told.inputs[0].stored(features[None, start : start + told.frames])
            logits, *following = self._call([given, *state])
            state = [
                tensor if made.quantisation == wanted.quantisation else wanted.stored(made.floats(tensor))
                for tensor, made, wanted in zip(following, told.outputs[1:], told.inputs[1:], strict=True)
            ]
            found.append(told.outputs[0].floats(logits)[0])
        return log_softmax(np.concatenate(found)), state


def read_state(told: Description, folder: Path) -> list[Array]:
    """What a stream remembers when it begins. Raises: ValueError where the file has not the size it should have."""
    data = (folder / told.initial).read_bytes()
    expected = sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in told.inputs[1:])
    if len(data) != expected:
        raise ValueError(f"{folder / told.initial} has {len(data)} bytes; {BUNDLE_FILE} says {expected}")
    found, at = [], 0
    for spec in told.inputs[1:]:
        count = int(np.prod(spec.shape))
        found.append(np.frombuffer(data, spec.dtype, count, at).reshape(spec.shape))
        at += found[-1].nbytes
    return found


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis."""
    moved = logits - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float32] = moved - np.log(np.exp(moved).sum(axis=-1, keepdims=True))
    return result


class Graph:
    """A model's step, ready for an exporter: its fused form, and the state with which a stream begins."""

    def __init__(self, checkpoint: Path, frames: int | None = None) -> None:
        """frames: T, feature frames of a call; those of one step if left out.

        Raises: ValueError where the checkpoint or T is unusable, or its attention is none that this form has.
        """
        import torch

        from kouling.deploy import fused, step

        self._checkpoint = checkpoint
        self.info, self._encoder = step.load(checkpoint)
        self.frames = frames or self.info.config.encoder.streaming_step_size
        self.module = fused.Fused(self._encoder, self.frames).eval().requires_grad_(False)
        self.state = fused.primed_state(self.info, self._encoder)
        self.names = ["features", *step.state_names(self.info.config.encoder.layers)[:-1]]
        self._features = torch.zeros(1, self.frames, self.info.config.features.num_mels)

    def inputs(self) -> tuple[Any, ...]:
        """Tensors of a first call: silence, and the state with which a stream begins."""
        return self._features, *self.state

    def calls(self, features: NDArray[np.float32]) -> Iterator[list[Any]]:
        """Inputs of calls one behind the other, each with the state that it meets. features: (frames, M)."""
        import torch

        state = self.state
        whole = torch.from_numpy(np.ascontiguousarray(features[: len(features) // self.frames * self.frames]))
        with torch.no_grad():
            for part in torch.split(whole, self.frames):
                inputs = [part[None], *state]
                yield inputs
                _, *state = self.module(*inputs)

    def named_calls(self, features: NDArray[np.float32] | None, most: int) -> Iterator[dict[str, Array]]:
        """About `most` of those calls, evenly spread, to calibrate by: a tensor's range is soon known.

        Raises: ValueError where there are no features.
        """
        if features is None:
            raise ValueError("static int8 needs recordings to calibrate by")
        every = max(len(features) // self.frames // most, 1)
        return (
            {name: tensor.numpy() for name, tensor in zip(self.names, inputs, strict=True)}
            for number, inputs in enumerate(self.calls(features))
            if number % every == 0
        )

    def equalize(self, features: NDArray[np.float32]) -> None:
        """See `fused.equalize`; once, before anything is exported as static int8."""
        from kouling.deploy import fused

        fused.equalize(self.module, self.calls(features))
        self.state = fused.primed_state(self.info, self._encoder, self.module)

    def reference(self) -> Any:
        """The model itself, in PyTorch, as a `Runner`."""
        from kouling.deploy.pytorch import TorchRunner

        return TorchRunner(self._checkpoint)

    def specs(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of the float form."""
        given = tuple(TensorSpec(name, tuple(t.shape)) for name, t in zip(self.names, self.inputs(), strict=True))
        frames = self.frames // self.info.config.encoder.subsampling
        logits = TensorSpec("logits", (1, frames, len(self.info.units)))
        return given, (logits, *(TensorSpec(f"{each.name}.next", each.shape) for each in given[1:]))
