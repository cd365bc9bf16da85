"""What the fused form is compared with is the same encoder, and the comparison says what is left to the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import fusion
from kouling import audio, recognizer
from kouling.deploy.ethos_u import Estimate
from kouling.deploy.graph import Placed, log_softmax
from kouling.features import LogMel
from tests.spoken import EXAMPLES

CHECKPOINT = recognizer.MODELS / "en-small" / "model.safetensors"


@pytest.fixture(scope="module")
def features() -> NDArray[np.float32]:
    config = recognizer.load_runner(recognizer.MODELS / "en-small" / "step.onnx").info.config
    return LogMel(config.features).accept(audio.read(EXAMPLES / "en-orders.ogg"))[:600]


def test_both_forms_give_the_same_numbers(features: NDArray[np.float32]) -> None:
    plain, fused = (fusion.graph_of(CHECKPOINT, form, features) for form in (fusion.PLAIN, fusion.FUSED))
    # Each to its end: a generator without gradients, left for another one, would take them from all other tests.
    both = [list(graph.calls(features)) for graph in (plain, fused)]
    for first, second in zip(*both, strict=True):
        found, wanted = plain.module(*first)[0].numpy(), log_softmax(fused.module(*second)[0].numpy())
        np.testing.assert_allclose(found, wanted, atol=2e-3)


def row(form: str, cycles: int, on_cpu: tuple[Placed, ...] = ()) -> fusion.Row:
    left = sum(each.count for each in on_cpu)
    estimate = Estimate("ethos-u55-128", "system", "mode", 500, 9216, 204800, cycles, cycles, 0.5, 300 - left, left)
    return fusion.Row(form, 280, estimate, on_cpu)


def test_the_table_says_what_is_saved_and_what_the_cpu_does() -> None:
    left = Placed("LOG_SOFTMAX", 3, "CPU", "Unsupported opType")
    lines = fusion.table([row(fusion.FUSED, 80_000), row(fusion.PLAIN, 100_000, (left,))]).splitlines()
    assert lines[2] == "| ethos-u55-128 | as in PyTorch | 280 | 297 of 300 | 9.0 | 200 | 100,000 | 0.500 |  |"
    assert lines[3] == "| ethos-u55-128 | fused | 280 | 300 of 300 | 9.0 | 200 | 80,000 | 0.500 | 20% |"
    assert lines[4] == "ethos-u55-128, as in PyTorch, on the CPU: 3 LOG_SOFTMAX: Unsupported opType"


def test_a_fifth_of_the_cycles_is_saved_and_nothing_left_to_the_cpu(features: NDArray[np.float32]) -> None:
    pytest.importorskip(
        "litert_torch", reason="LiteRT's converter: pip install 'kouling[litert]'", exc_type=ImportError
    )
    pytest.importorskip("ethosu.vela", reason="Vela: pip install 'kouling[ethos-u]'", exc_type=ImportError)
    (plain,), (best,) = (
        fusion.compiled(CHECKPOINT, form, features, ["ethos-u55-128"]) for form in (fusion.PLAIN, fusion.CLUSTERED)
    )
    assert {each.kind for each in plain.on_cpu} >= {"LOG_SOFTMAX"} and not best.on_cpu
    assert best.operators < plain.operators
    assert best.estimate.total_cycles < 0.8 * plain.estimate.total_cycles


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("nothing", Path("."), ["ethos-u55-128"]), "nothing: no checkpoint"),
        (("en-small", Path("nowhere"), ["ethos-u55-128"]), "nowhere: no such folder"),
        (("en-small", Path("."), ["ethos-u1"]), "no accelerator 'ethos-u1'; allowed: ethos-u55-32"),
    ],
)
def test_wrong_orders_are_one_line(given: tuple[str, Path, list[str]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        fusion.main(*given)
