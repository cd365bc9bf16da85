"""ONNX: export of a checkpoint, and the step in ONNX Runtime, which needs no torch.

The graph takes any whole number of steps at once, so that a live stream and a file run in the same model.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.checkpoint import ModelInfo, write_whole

METADATA_KEY = "kouling"
OPSET = 18

State = list[NDArray[Any]]


class OnnxRunner:
    """A streaming step in ONNX Runtime, on one thread: a step is too small to share."""

    def __init__(self, path: Path) -> None:
        """Raises: ValueError where the file is no kouling model or onnxruntime is missing; FileNotFoundError."""
        self._session = open_session(path)
        metadata = self._session.get_modelmeta().custom_metadata_map
        if METADATA_KEY not in metadata:
            raise ValueError(f"{path}: an ONNX model, but not one of kouling")
        try:
            self.info = ModelInfo.from_json(metadata[METADATA_KEY])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        self._inputs = self._session.get_inputs()
        self._outputs = [output.name for output in self._session.get_outputs()]

    def initial_state(self) -> State:
        dtypes = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
        return [np.zeros(entry.shape, dtype=dtypes[entry.type]) for entry in self._inputs[1:]]

    def step(self, features: NDArray[np.float32], state: State) -> tuple[NDArray[np.float32], State]:
        """features: (T, M), T a multiple of the step -> log-probabilities (N, V), next state."""
        feeds = {entry.name: value for entry, value in zip(self._inputs, [features[None], *state], strict=True)}
        log_probs, *following = self._session.run(self._outputs, feeds)
        return log_probs[0], following


def open_session(path: Path) -> Any:
    """ONNX Runtime's session of a model, on one thread.

    Raises: ValueError where the file is no ONNX model or onnxruntime is missing; FileNotFoundError.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        raise ValueError("ONNX Runtime is needed to run models; install with: pip install 'kouling[onnx]'") from None
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such model")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors reach the user as exceptions, once
    try:
        return ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises bare types of its own, with the file's bytes in the message
        raise ValueError(f"{path}: not a usable ONNX model ({type(error).__name__})") from None


def export(checkpoint_path: Path, output: Path) -> None:
    """Write the step of a checkpoint as ONNX, with the model's description inside.

    Raises: ValueError where the checkpoint is unusable; OSError where the file cannot be written.
    """
    import onnx
    import torch

    from kouling.deploy import step

    info, encoder = step.load(checkpoint_path)
    shape = info.config.encoder
    names = step.state_names(shape.layers)
    features = torch.zeros(1, 3 * shape.streaming_step_size, info.config.features.num_mels)
    # Copies: the blocks' zeros are one tensor, which the exporter would take for one input.
    state = [tensor.clone() for tensor in step.flatten(encoder.initial_state(1))]
    steps = torch.export.Dim("frames", min=1, max=4096) * shape.subsampling
    model = to_onnx(
        step.Step(encoder),
        (features, *state),
        ["features", *names],
        ["log_probs", *(f"{name}.next" for name in names)],
        ({1: steps}, tuple({} for _ in state)),
    )
    model.metadata_props.append(onnx.StringStringEntryProto(key=METADATA_KEY, value=info.to_json()))
    write_whole(output, model.SerializeToString())


def to_onnx(
    module: Any, inputs: tuple[Any, ...], input_names: list[str], output_names: list[str], dynamic_shapes: Any = None
) -> Any:
    """A PyTorch module as an ONNX ModelProto; dynamic_shapes as `torch.onnx.export` takes them, all fixed if None."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # and logs that torchvision is not there
        program = torch.onnx.export(
            module,
            inputs,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=dynamic_shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:  # paths of the machine that exported it
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    return model
