"""A worker for the runtimes whose host is Python; see worker.h for the lines that it answers.

python worker.py RUNTIME MODEL SPEECH.f32 FRAMES MELS OUTPUTS OPTION [STATE.f32], the numbers those of a call

It imports NumPy and the runtime and nothing else, so that its memory is theirs. Every array is made once.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
WARM_UP = 3
DEFAULT_AND_FP16 = 0xF  # XNNPACK's flags: QS8, QU8, FORCE_FP16, DYNAMIC_FULLY_CONNECTED


class OnnxRuntime:
    """IO binding to arrays of ours; two sets of them take turns as the state that goes in and that which comes out."""

    def __init__(self) -> None:
        import onnxruntime

        self.ort = onnxruntime

    def load(self, model: str, outputs: int, option: str, beginning: Floats) -> None:
        ort = self.ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        entries, results = self.session.get_inputs(), self.session.get_outputs()
        self.features = np.zeros(entries[0].shape, np.float32)
        self.log_probs = np.zeros(results[0].shape, np.float32)
        states = [[np.zeros(entry.shape, np.float32) for entry in entries[1:]] for _ in range(2)]
        self.bindings = []
        for now in range(2):
            binding = self.session.io_binding()
            for entry, array in zip(entries, [self.features, *states[now]], strict=True):
                binding.bind_ortvalue_input(entry.name, ort.OrtValue.ortvalue_from_numpy(array))
            for result, array in zip(results, [self.log_probs, *states[1 - now]], strict=True):
                binding.bind_ortvalue_output(result.name, ort.OrtValue.ortvalue_from_numpy(array))
            self.bindings.append(binding)
        self.state, self.beginning, self.turn = states[0], beginning, 0
        self.run = self.session.run_with_iobinding

    def reset(self) -> None:
        self.turn = 0
        fill(self.state, self.beginning)

    def call(self, features: Floats) -> None:
        self.features[0] = features
        self.run(self.bindings[self.turn])
        self.turn = 1 - self.turn


class OpenVino:
    """Two requests on tensors of ours, which take turns as in `OnnxRuntime`. Float stays float where a processor has
    bfloat16."""

    def __init__(self) -> None:
        import openvino

        self.openvino = openvino

    def load(self, model: str, outputs: int, option: str, beginning: Floats) -> None:
        ov = self.openvino
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
        settings["PERFORMANCE_HINT"] = "LATENCY"
        compiled = ov.Core().compile_model(model, "CPU", settings)
        self.features, *_ = entries = [np.zeros(list(port.shape), np.float32) for port in compiled.inputs]
        self.log_probs = np.zeros(list(compiled.outputs[0].shape), np.float32)
        states = [entries[1:], [np.zeros_like(each) for each in entries[1:]]]
        self.requests = []
        for now in range(2):
            request = compiled.create_infer_request()
            for index, array in enumerate([self.features, *states[now]]):
                request.set_input_tensor(index, ov.Tensor(array, shared_memory=True))
            for index, array in enumerate([self.log_probs, *states[1 - now]][: len(compiled.outputs)]):
                request.set_output_tensor(index, ov.Tensor(array, shared_memory=True))
            self.requests.append(request)
        self.kept = states  # OpenVINO does not keep what it is given
        self.state, self.beginning, self.turn = states[0], beginning, 0

    def reset(self) -> None:
        self.turn = 0
        fill(self.state, self.beginning)

    def call(self, features: Floats) -> None:
        self.features[0] = features
        request = self.requests[self.turn]
        request.start_async()
        request.wait()
        self.turn = 1 - self.turn


class Interpreter:
    """LiteRT's Interpreter, its lowest-overhead way: views of its own tensors, held, and its inner `Invoke`.

    The state is copied from the outputs to the inputs.
    """

    def __init__(self) -> None:
        from ai_edge_litert import interpreter

        self.interpreter = interpreter

    def load(self, model: str, outputs: int, option: str, beginning: Floats) -> None:
        self.model = self.interpreter.Interpreter(model, num_threads=1)
        self.model.allocate_tensors()
        (signature,) = self.model._get_full_signature_list().values()
        inputs, results = (
            [self.model.tensor(index)() for _, index in in_order(signature[key])] for key in ("inputs", "outputs")
        )
        self.features, *self.state = inputs
        self.log_probs = results[0]
        self.pairs = list(zip(self.state, results[1:], strict=False))
        self.beginning, self.invoke = beginning, self.model._interpreter.Invoke

    def reset(self) -> None:
        fill(self.state, self.beginning)

    def call(self, features: Floats) -> None:
        self.features[0] = features
        self.invoke(0)
        for to, source in self.pairs:
            np.copyto(to, source)


class CompiledModel:
    """LiteRT's newer interface, the only one that takes XNNPACK's flags. Its buffers take turns, without a copy."""

    def __init__(self) -> None:
        from ai_edge_litert import _pywrap_litert_tensor_buffer_wrapper, compiled_model, options

        self.compiled_model, self.options, self.buffers = compiled_model, options, _pywrap_litert_tensor_buffer_wrapper

    def load(self, model: str, outputs: int, option: str, beginning: Floats) -> None:
        flags = DEFAULT_AND_FP16 if option == "fp16" else None
        options = self.options.Options(
            hardware_accelerators=self.compiled_model.HardwareAccelerator.CPU,
            cpu_options=self.options.CpuOptions(num_threads=1, xnnpack_flags=flags),
        )
        self.model = self.compiled_model.CompiledModel.from_file(model, options=options)
        self.results = [self.model.create_output_buffers(0) for _ in range(2)]
        self.entries = [self.model.create_input_buffers(0) for _ in range(2)]
        ins, outs = ([[buffer.capsule for buffer in each] for each in both] for both in (self.entries, self.results))
        # An output that is the features themselves, as the stem's state of a step no longer than the lookahead, is
        # never written: CompiledModel would read the features from its buffer. So it gets theirs.
        ((key, names),) = self.model.get_signature_list().items()
        given = self.model.get_input_tensor_details(key)[names["inputs"][0]]["index"]
        made = self.model.get_output_tensor_details(key)
        for place, name in enumerate(names["outputs"]):
            if made[name]["index"] == given:
                for now in range(2):
                    outs[now][place] = ins[now][0]
        self.calls = [([ins[now][0], *outs[1 - now][1:]], outs[now]) for now in range(2)]
        self.run = self.model._model.RunByIndex
        self.log_probs, self.beginning, self.turn = np.zeros(outputs, np.float32), beginning, 0

    def reset(self) -> None:
        at, self.turn = 0, 0
        for capsule, buffer in zip(self.calls[0][0][1:], self.entries[0][1:], strict=False):
            size = math.prod(buffer.get_tensor_details()["shape"])
            self.buffers.WriteTensorBuffer(capsule, self.beginning[at : at + size], "float32")
            at += size
        assert at == len(self.beginning), "the state does not fit the model"

    def call(self, features: Floats) -> None:
        inputs, outputs = self.calls[self.turn]
        self.buffers.WriteTensorBuffer(inputs[0], features.reshape(-1), "float32")
        self.run(0, inputs, outputs)
        self.buffers.ReadTensorToBuffer(outputs[0], self.log_probs, "float32")
        self.turn = 1 - self.turn


class Engine:
    """kouling's own module. option: live or file, feature frames of an encoder frame."""

    def __init__(self) -> None:
        from kouling import _engine

        self.engine = _engine

    def load(self, model: str, outputs: int, option: str, beginning: Floats) -> None:
        mode, subsampling = option.split(",")
        at_once = self.engine.LIVE if mode == "live" else self.engine.FILE
        self.stream = self.engine.Stream(self.engine.Model(Path(model).read_bytes()), None, at_once)
        self.subsampling = int(subsampling)
        self.reset = self.stream.reset

    def call(self, features: Floats) -> None:
        self.log_probs = self.stream.log_probs(features, self.subsampling)


RUNTIMES: dict[str, type[Any]] = {
    "ort": OnnxRuntime,
    "openvino": OpenVino,
    "interpreter": Interpreter,
    "compiled": CompiledModel,
    "engine": Engine,
}


def in_order(tensors: dict[str, int]) -> list[tuple[str, int]]:
    """args_2 before args_10."""
    return sorted(tensors.items(), key=lambda entry: int(entry[0].rsplit("_", 1)[1]))


def fill(arrays: list[Floats], values: Floats) -> None:
    at = 0
    for array in arrays:
        array[...] = values[at : at + array.size].reshape(array.shape)
        at += array.size
    assert at == len(values), "the state does not fit the model"


def memory() -> dict[str, int]:
    names = {"VmRSS": "resident", "RssAnon": "anonymous", "VmHWM": "peak", "Private_Dirty": "private_dirty"}
    lines = Path("/proc/self/status").read_text() + Path("/proc/self/smaps_rollup").read_text()
    pairs = (line.split(":", 1) for line in lines.splitlines() if ":" in line)
    return {names[key]: int(value.split()[0]) for key, value in pairs if key in names}


def main() -> None:
    # What runtimes print goes to stderr, so that the lines of answers are clean.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, model, speech_path, frames, mels, outputs, option, *state = sys.argv[1:]
    mapped = np.memmap(speech_path, np.float32, "r")
    speech: Floats = mapped.reshape(-1, int(frames), int(mels)).view(np.ndarray)
    beginning = np.fromfile(state[0], np.float32) if state else np.zeros(0, np.float32)
    runtime = RUNTIMES[name]()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the model alone, not of the imports
    print(json.dumps(memory()), file=answers, flush=True)
    runtime.load(model, int(outputs), option, beginning)
    runtime.reset()
    at = 0
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "go":
            times = []
            for _ in range(WARM_UP + int(argument)):
                features = speech[at % len(speech)]
                at += 1
                start = time.perf_counter_ns()
                runtime.call(features)
                times.append(time.perf_counter_ns() - start)
            answer = " ".join(map(str, times[WARM_UP:]))
        elif command == "check":
            runtime.reset()
            with open(argument, "wb") as file:
                for features in speech:
                    runtime.call(features)
                    file.write(np.ascontiguousarray(runtime.log_probs).tobytes())
            answer = "done"
        else:
            answer = json.dumps(memory())
        print(answer, file=answers, flush=True)


main()
