"""`kouling export`: a trained model for another runtime."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from kouling import show
from kouling.checkpoint import write_whole
from kouling.cli.options import DONE, FAILED, checkpoint_of, complain, verb

FILES = ("engine", "c-array")  # targets whose export is a single file
NPUS = ("ethos-u", "executorch-ethos-u", "rknn")
# Or a folder; onnx is a file where the output ends in .onnx.
BUNDLES = ("onnx", "litert", "openvino", "executorch", *NPUS)


def add(verbs: Any) -> None:
    send = verb(verbs, "export", run, "write a trained model for another runtime, or a command set for the engine")
    send.add_argument("model", metavar="MODEL|SET", help="installed name, folder, model.safetensors; or a set, TOML")
    send.add_argument("--target", choices=[*FILES, *BUNDLES], help="needed for a model; a set is for the engine")
    send.add_argument("--model", dest="words_of", metavar="M", help="SET: of which model the words are")
    send.add_argument("--commands", type=Path, metavar="SET", help="engine: what to listen for; every word if left out")
    send.add_argument(
        "--weights",
        choices=["int8", "int4", "float"],
        help="engine, c-array: of weights; if left out int4 where the checkpoint was made for it, else int8",
    )
    send.add_argument(
        "--state",
        choices=["float", "bfloat16", "int8"],
        help="engine, c-array: how a stream stores what it remembers; float if left out",
    )
    send.add_argument(
        "--scheme",
        choices=["float", "dynamic", "static"],
        help="other targets: float, int8 weights, or all int8 as NPUs need it; float if left out, static for NPUs",
    )
    send.add_argument(
        "--recordings",
        type=Path,
        metavar="DIR",
        help="real speech: every other recording calibrates static int8, the rest proves the export",
    )
    send.add_argument("--frames", type=int, metavar="T", help="feature frames of a call; those of a step if left out")
    send.add_argument("--accelerator", metavar="A", help="of an NPU: ethos-u55-128 if left out, rk3588 for rknn")
    send.add_argument(
        "--levels",
        type=int,
        metavar="N",
        help="weights of a channel take N values, 31 or 15: smaller, faster",
    )
    send.add_argument("--require-full-npu", action="store_true", help="NPUs: fail where the CPU is needed")
    send.add_argument(
        "-o", "--output", type=Path, required=True, help="a file (engine, c-array, NAME.onnx), or a new folder"
    )


def run(options: argparse.Namespace) -> int:
    if options.model.endswith(".toml"):
        return _set(options)
    if options.target is None:
        raise ValueError(f"--target is missing; allowed: {', '.join([*FILES, *BUNDLES])}")
    refuse_strangers(options)
    try:
        path = checkpoint_of(options.model)
        return _bundle(options, path) if _is_bundle(options) else _file(options, path)
    except ModuleNotFoundError as error:
        raise ValueError(f"export needs {error.name}; install with: pip install 'kouling[train,onnx]'") from None


def _is_bundle(options: argparse.Namespace) -> bool:
    return options.target in BUNDLES and not (options.target == "onnx" and options.output.suffix == ".onnx")


def refuse_strangers(options: argparse.Namespace) -> None:
    """Raises: ValueError where an option does not go with the target."""
    folders = tuple(target for target in BUNDLES if target != "onnx" or _is_bundle(options))
    own = {
        "words_of": (),
        "commands": ("engine", "c-array"),
        "weights": ("engine", "c-array"),
        "state": ("engine", "c-array"),
        "scheme": folders,
        "recordings": folders,
        "frames": folders,
        "levels": folders,
        "accelerator": NPUS,
        "require_full_npu": NPUS,
    }
    for name, targets in own.items():
        if getattr(options, name) and options.target not in targets:
            if not targets:
                raise ValueError("--model goes with a command set, SET.toml")
            raise ValueError(
                f"--{name.replace('_', '-')} goes with --target {' or '.join(targets)}, not with {options.target}"
            )


def _set(options: argparse.Namespace) -> int:
    """A command set by itself, compiled for a model that is in the engine already."""
    from kouling import recognizer
    from kouling.deploy import model_file

    others = ("commands", "weights", "state", "scheme", "recordings", "frames", "accelerator", "levels")
    for name in (each for each in others if getattr(options, each)):
        raise ValueError(f"--{name} goes with a model, not with a command set")
    if options.target not in (None, "engine"):
        raise ValueError(f"--target {options.target} of a command set; allowed: engine")
    if options.words_of is None:
        raise ValueError(f"--model is missing; needed: the model for which {options.model} is compiled")
    info = recognizer.load_runner(options.words_of).info
    write_whole(options.output, model_file.pack_commands(info, recognizer.chosen_commands(info, options.model)))
    return DONE


def _file(options: argparse.Namespace, path: Path) -> int:
    if options.target == "onnx":
        from kouling.deploy import onnx

        onnx.export(path, options.output)
        return DONE
    from kouling.deploy import c_array, engine

    wanted = (options.weights, options.commands, options.state or "float")
    if options.target == "engine":
        engine.export(path, options.output, *wanted)
        return DONE
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "model.kouling"
        engine.export(path, packed, *wanted)
        text = c_array.header(packed.read_bytes(), engine.Engine(packed).info.name)
    write_whole(options.output, text.encode())
    return DONE


def _bundle(options: argparse.Namespace, path: Path) -> int:
    from kouling.deploy import bundle
    from kouling.deploy.bundle import Order

    scheme = options.scheme or ("static" if options.target in NPUS else "float")
    order = Order(options.target, scheme, options.frames, options.recordings, options.accelerator or "", options.levels)
    found = bundle.export(path, order, options.output, show.errors.status)
    on_cpu = [each for each in found.placed if each.on == "CPU"]
    if found.estimate:
        show.console.print(found.estimate.line)
        for each in on_cpu:
            show.console.print(f"on the CPU: {each.count} {each.kind}: {each.why}")
    if found.parity:
        show.console.print(found.parity.line)
    if found.parity and not found.parity.passed:
        return complain(f"{options.output} does not hear what PyTorch hears; see report.json there", FAILED)
    if options.require_full_npu and found.estimate and found.estimate.cpu_operators:
        return complain(f"{found.estimate.cpu_operators} operators run on the CPU", FAILED)
    return DONE
