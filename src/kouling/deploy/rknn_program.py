"""What runs where RKNN Toolkit is: builds a step for a Rockchip NPU, and is that NPU's simulator.

    python rknn_program.py MODEL.onnx CALIBRATION.npz PLATFORM OUTPUT.rknn    builds, writes, ends
    python rknn_program.py MODEL.onnx CALIBRATION.npz PLATFORM -    builds; then each call: inputs on stdin, outputs on
                                                                    stdout, float32

The toolkit needs a Python environment of its own, so nothing of kouling's is imported. What it says goes to stderr.
"""

import os
import sys
import tempfile

sys.path.pop(0)  # the folder of this file, in which other modules are called as packages are: onnx, rknn

import numpy as np  # noqa: E402


def main(model: str, calibration: str, platform: str, output: str) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the toolkit's own words, of its C++ parts too
    from rknn.api import RKNN

    calls = np.load(calibration)
    names = list(calls.files)  # in the order of the model's inputs
    shapes = [calls[name].shape[1:] for name in names]
    toolkit = RKNN(verbose=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where it leaves its intermediate models
        with open("calls.txt", "w") as listed:
            for number in range(len(calls[names[0]])):
                for index, name in enumerate(names):
                    np.save(f"{number}-{index}.npy", calls[name][number])
                listed.write(" ".join(f"{number}-{index}.npy" for index in range(len(names))) + "\n")
        done = toolkit.config(target_platform=platform, optimization_level=3) or toolkit.load_onnx(model)
        done = done or toolkit.build(do_quantization=True, dataset="calls.txt")
        done = done or (toolkit.export_rknn(output) if output != "-" else toolkit.init_runtime())
        if done:
            sys.exit("the model could not be built")
        sizes = [int(np.prod(shape)) for shape in shapes]
        while output == "-" and (given := sys.stdin.buffer.read(4 * sum(sizes))):
            parts = np.split(np.frombuffer(given, np.float32), np.cumsum(sizes)[:-1])
            inputs = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
            for tensor in toolkit.inference(inputs=inputs, data_format=["nchw"] * len(inputs)):
                answers.write(np.ascontiguousarray(tensor, np.float32).tobytes())
            answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
