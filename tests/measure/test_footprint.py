"""What is planned: exact where it can be checked, and the same as what a fresh process really takes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import count
from kouling import checkpoint, recognizer
from kouling.config import PRESETS
from kouling.deploy import engine, model_file, state_scales
from kouling.deploy.engine import Engine
from kouling.measure import arena, footprint, memory, runtimes
from kouling.measure.footprint import ACTIVATION, Plan, Walk
from kouling.measure.runtimes import SIZES, Subject
from tests.shapes import SHAPES

MODELS = ["en-base", "en-small", "en-commands"]
CORPUS = Path(__file__).parents[2] / "engine" / "fuzz" / "corpus"


def engine_of(model: str) -> Subject:
    pytest.importorskip("kouling._engine", reason="the engine was not built", exc_type=ImportError)
    return runtimes.open_subject(*runtimes.find(model, "engine"))


def struct_bytes(plan: Plan) -> int:
    """What is left of the arena when all else is counted: the stream's struct, whose size only C knows."""
    (found,) = (each.bytes for each in plan.buffers if each.role == "stream and its samples")
    return found


@pytest.mark.parametrize("model", MODELS)
def test_weights_are_those_of_the_checkpoint(model: str) -> None:
    info, tensors = checkpoint.load(recognizer.MODELS / model / "model.safetensors")
    plan = footprint.in_float32(info.config, len(info.units), info.config.encoder.streaming_step_size)
    assert plan.model_bytes == 4 * sum(tensor.size for tensor in tensors.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_multiply_accumulates_are_those_of_the_benchmark(preset: str) -> None:
    config = PRESETS[preset]
    plan = footprint.in_float32(config, 17, config.encoder.subsampling)
    assert plan.macs == count.per_frame(config, 17).macs == sum(layer.macs for layer in plan.layers)


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_of_any_shape_are_counted(shape: str, shaped_model: Callable[..., Path]) -> None:
    info, tensors = checkpoint.load(shaped_model(shape))
    encoder, units = info.config.encoder, len(info.units)
    plan = footprint.in_float32(info.config, units, encoder.streaming_step_size)
    assert plan.model_bytes == 4 * sum(tensor.size for tensor in state_scales.without_scales(tensors).values())
    at_least = count.per_frame(info.config, units).macs
    one, many = (
        sum(each.macs for each in Walk(info.config, units, frames, windowed=True).operations)
        for frames in (encoder.subsampling, 50 * encoder.subsampling)
    )
    assert (one, many) == (at_least, 50 * at_least)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", model_file.SCHEMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_byte_of_blocks_of_any_shape_is_accounted_for(
    shape: str, scheme: str, size: str, shaped_model: Callable[..., Path], tmp_path: Path
) -> None:
    for state in model_file.STATES:
        engine.export(shaped_model(shape), tmp_path / "m.kouling", scheme, state=state)
        accounted_for(runtimes.open_subject(*runtimes.find(tmp_path / "m.kouling")), size)


@pytest.mark.parametrize("model", MODELS)
def test_windows_cost_as_much_in_every_frame(model: str) -> None:
    info = checkpoint.load_info(recognizer.MODELS / model / "model.safetensors")
    step = info.config.encoder.subsampling
    one, many = (
        sum(each.macs for each in Walk(info.config, 17, frames, windowed=True).operations)
        for frames in (step, 100 * step)
    )
    assert many == 100 * one


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", SIZES)
def test_every_byte_of_the_engine_is_accounted_for(model: str, size: str) -> None:
    accounted_for(engine_of(model), size)


def accounted_for(subject: Subject, size: str) -> None:
    """Every byte of the weights has its operation, and every byte of the arena its buffer."""
    plan = subject.plan(size)
    file = subject.path.read_bytes()
    weights_at, commands_at = struct.unpack_from("<II", file, 88)
    (linears,) = struct.unpack_from("<I", file, 20)
    kinds = -(-linears // 64) * 64
    assert sum(each.weight_bytes for each in plan.operations) == commands_at - weights_at - kinds
    assert struct_bytes(plan) == struct_bytes(engine_of("en-small").plan("step"))  # the same for all models and calls
    scratch = {each.role: each.bytes for each in plan.buffers if each.kind == ACTIVATION}
    assert max(plan.live_bytes) <= plan.variable_bytes
    assert set(scratch) <= {role for roles in arena.SCRATCH.values() for role in roles}


@pytest.mark.parametrize(
    "seed", sorted(CORPUS.glob("seed-[!s]*")) + [CORPUS / "seed-small"], ids=lambda path: path.name
)
@pytest.mark.parametrize("at_once", [1, 16])
def test_every_byte_is_accounted_for_whatever_the_shape(seed: Path, at_once: int) -> None:
    """Pruned, linear, int4, float: the fuzzer's seeds are of all kinds."""
    expected = struct_bytes(engine_of("en-small").plan("step"))
    model, file = Engine(seed), seed.read_bytes()
    frames = model.info.config.encoder.streaming_step_size
    plan = arena.plan(file, model.info, frames, model.stream(at_once).size, at_once)
    weights_at, commands_at = struct.unpack_from("<II", file, 88)
    (linears,) = struct.unpack_from("<I", file, 20)
    assert sum(each.weight_bytes for each in plan.operations) == commands_at - weights_at - -(-linears // 64) * 64
    assert struct_bytes(plan) == expected


@pytest.mark.skipif(not memory.ROLLUP.exists(), reason="only Linux says what is private")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", ["step", "500"])
def test_the_engine_takes_what_is_planned(model: str, size: str) -> None:
    subject = engine_of(model)
    planned = subject.plan(size).total_bytes
    found = memory.of_fresh_process("engine", subject.path, size)
    assert found is not None
    assert abs(found.private_bytes - planned) <= max(0.05 * planned, 64 * 1024)
    assert found.private_bytes < found.process_private_bytes < found.peak_rss_bytes


def test_a_plan_names_its_peak() -> None:
    plan = footprint.in_float32(PRESETS["base"], 17, 500)
    assert plan.live_bytes[plan.peak] == max(plan.live_bytes) == plan.variable_bytes
    assert plan.operations[plan.peak].part == "attention"
    assert plan.at(plan.peak)[0].role in ("scores", "biases of distances")
