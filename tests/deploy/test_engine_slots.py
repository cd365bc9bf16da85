"""The C engine hears commands with slots as Python does: the same events, slots and confidences."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import checkpoint, commands, grammar
from kouling.commands import BLANK, UNKNOWN, Command
from kouling.deploy import engine, model_file
from kouling.deploy.engine import Engine
from kouling.measure import arena
from kouling.recognizer import decoder_of
from tests.orders import ORDERS
from tests.shapes import SMALL_ENCODER, save_random

_engine = pytest.importorskip("kouling._engine", reason="the engine was not built", exc_type=ImportError)

# With a value of more bytes than letters, and a word of a slot in a command without one.
SET: dict[str, Any] = {
    **ORDERS,
    "threshold": 0.3,
    "max_command_duration_s": 15,
    "fillers": 0.7,
    "slots": {**ORDERS["slots"], "drink": [*ORDERS["slots"]["drink"], "café crème"]},
    "command": [*ORDERS["command"][:-1], {"name": "stop", "phrases": ["stop [it]", "little stop"]}],
}
UNITS = (BLANK, UNKNOWN, *grammar.words(SET))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("slots")
    save_random(folder / "model.safetensors", SMALL_ENCODER, UNITS)
    engine.export(folder / "model.safetensors", folder / "m.kouling", "int8")
    return Engine(folder / "m.kouling")


def scene(seed: int, words: int) -> NDArray[np.float32]:
    """Sentences of the set and of other words, each word in up to three frames, with a second guess and some noise."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    heard: list[str] = []
    read = grammar.read(SET, "set").commands
    while len(heard) < words:
        heard += rng.choice(read).sample(rng)[0].split()
        heard += (
            rng.choices([UNKNOWN, *UNITS[2:]], k=rng.choice([0, 0, 1, 3])) if seed % 2 else [""] * rng.randint(1, 9)
        )
        if rng.random() < 0.2:
            heard.insert(-1, UNKNOWN)
    rows = [np.eye(len(UNITS))[0]] * 4
    for word in heard:
        for _ in range(rng.choice([1, 1, 2, 3]) if word else 0):
            row = numbers.dirichlet(np.full(len(UNITS), 0.02)) * rng.choice([0.0, 0.1, 0.4])
            row[UNITS.index(word)] += rng.choice([0.3, 0.9, 0.97]) * (1 - row.sum())
            row[0] += 1 - row.sum()
            rows.append(row)
        rows += [np.eye(len(UNITS))[0]] * rng.choice([1, 2, 5, 9])
    rows += [np.eye(len(UNITS))[0]] * 60
    return np.log(np.maximum(np.array(rows), 1e-9)).astype(np.float32)


def heard_by_python(model: Engine, log_probs: NDArray[np.float32], table: dict[str, Any]) -> list[Command]:
    return decoder_of(model.info, commands.parse(table, UNITS, "set")).accept(log_probs)


def heard_by_engine(
    model: Engine, log_probs: NDArray[np.float32], table: dict[str, Any], portion: int
) -> list[Command]:
    recognizer = model.recognizer(commands.parse(table, UNITS, "set"))
    parts = [log_probs[start : start + portion] for start in range(0, len(log_probs), portion)]
    return [each for part in parts for each in recognizer._commands(recognizer._stream.decode(part))]


@pytest.mark.parametrize("portion", [1, 10_000])
@pytest.mark.parametrize("seed", range(12))
def test_events_and_slots_are_those_of_python(model: Engine, seed: int, portion: int) -> None:
    log_probs = scene(seed, 60)
    expected = heard_by_python(model, log_probs, SET)
    found = heard_by_engine(model, log_probs, SET, portion)
    assert len(expected) > 2 and any(each.slots for each in expected)
    assert [(each.name, each.slots) for each in found] == [(each.name, each.slots) for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert [type(value) for value in one.slots.values()] == [type(value) for value in other.slots.values()]
        assert (one.start_s, one.end_s) == pytest.approx((other.start_s, other.end_s), abs=0.002)
        assert one.confidence == pytest.approx(other.confidence, abs=2e-4)
        assert one.slot_confidences == pytest.approx(dict(other.slot_confidences), abs=2e-4)


@pytest.mark.parametrize("seed", range(6))
def test_noise_is_heard_alike(model: Engine, seed: int) -> None:
    rng = np.random.default_rng(seed)
    log_probs = np.log(np.maximum(rng.dirichlet(np.full(len(UNITS), [0.02, 0.1][seed % 2]), 800), 1e-9))
    table = {**SET, "threshold": 0.05, "hesitation_s": 0.0, "refractory_s": 0.1}
    expected = heard_by_python(model, log_probs.astype(np.float32), table)
    found = heard_by_engine(model, log_probs.astype(np.float32), table, 100)
    assert expected and [(e.name, e.slots, e.end_s) for e in found] == [(e.name, e.slots, e.end_s) for e in expected]


def test_a_set_without_slots_is_packed_as_it_always_was(model: Engine) -> None:
    plain = {"command": [{"name": "stop", "phrases": ["stop [it]"]}]}
    for table, version in ((plain, 1), (SET, 2)):
        packed = model_file.pack_commands(model.info, commands.parse(table, UNITS, "set"))
        assert struct.unpack_from("<I", packed, 8) == (version,)


def test_the_plan_of_a_stream_accounts_for_every_byte_of_graphs(tmp_path: Path) -> None:
    save_random(tmp_path / "model.safetensors", SMALL_ENCODER, UNITS)
    info, tensors = checkpoint.load(tmp_path / "model.safetensors")
    rest = []
    for table in ({"command": [{"name": "stop"}]}, SET):
        file = model_file.pack(info, tensors, commands.parse(table, UNITS, "set"))
        (tmp_path / "m.kouling").write_bytes(file)
        plan = arena.plan(file, info, 8, Engine(tmp_path / "m.kouling").stream(1, None).size, 1)
        rest += [buffer.bytes for buffer in plan.buffers if buffer.role == "stream and its samples"]
    assert rest[0] == rest[1]


def test_a_model_may_bring_a_set_with_slots(model: Engine, tmp_path: Path) -> None:
    save_random(tmp_path / "model.safetensors", SMALL_ENCODER, UNITS)
    info, tensors = checkpoint.load(tmp_path / "model.safetensors")
    chosen = commands.parse(SET, UNITS, "set")
    (tmp_path / "m.kouling").write_bytes(model_file.pack(info, tensors, chosen))
    log_probs = scene(3, 40)
    stream = Engine(tmp_path / "m.kouling").stream(1, None)
    found = [(index, slots) for index, _, _, _, slots in stream.decode(log_probs)]
    assert found and found == [(i, slots) for i, _, _, _, slots in model.recognizer(chosen)._stream.decode(log_probs)]
