"""Candidates cost what they say, stand in order, and an impossible budget is refused with the nearest possible one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="compression needs torch")

from kouling import checkpoint, commands  # noqa: E402
from kouling.checkpoint import ModelInfo  # noqa: E402
from kouling.compress import cost, plan  # noqa: E402
from kouling.compress.cost import Cost  # noqa: E402
from kouling.compress.plan import KEPT, PRUNED, STUDENT, Budget, Candidate  # noqa: E402
from kouling.config import PRESETS  # noqa: E402
from kouling.deploy import engine, model_file  # noqa: E402

UNITS = ("<blank>", "<unknown>", "up", "down", "left")
INFO = ModelInfo("some", "en", PRESETS["small"], UNITS)


def test_bytes_do_not_hang_on_what_the_weights_are(tmp_path: Path) -> None:
    weights = {key: 3 * value for key, value in cost.random_weights(INFO).items()}
    path = tmp_path / "m.kouling"
    path.write_bytes(model_file.pack(INFO, weights, commands.every_unit(UNITS), "int8", "bfloat16"))
    found = cost.of_shape(INFO, "int8", "bfloat16", 501, turns=1)
    assert found.model_bytes == path.stat().st_size
    assert found.variable_bytes == engine.Engine(path).stream(engine.LIVE).size
    assert found.parameters == sum(v.size for k, v in weights.items() if "running" not in k)
    assert found.frames == 501 and found.call_ms == pytest.approx(found.step_us * 167 / 1000)


def test_many_frames_take_no_more_memory_than_a_step_and_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "m.kouling"
    path.write_bytes(model_file.pack(INFO, cost.random_weights(INFO), commands.every_unit(UNITS)))
    opened = engine.Engine(path)
    features = np.random.default_rng(1).uniform(0, 2, (501, 64)).astype(np.float32)
    at_once, in_steps = opened.stream(engine.LIVE), opened.stream(engine.LIVE)
    whole = at_once.log_probs(features, 3)
    steps = [in_steps.log_probs(features[i : i + 3], 3) for i in range(0, 501, 3)]
    assert at_once.size == in_steps.size < opened.stream(engine.FILE).size
    np.testing.assert_array_equal(whole, np.concatenate(steps))


def test_candidates_take_away_more_and_more() -> None:
    info = checkpoint.load_info(Path(plan.__file__).parents[1] / "models" / "en-base" / "model.safetensors")
    found = plan.candidates(info)
    assert [each.kind for each in found] == sorted((each.kind for each in found), key=[KEPT, PRUNED, STUDENT].index)
    assert [each.name for each in found[:4]] == [
        "whole-int8-float",
        "whole-int8-bfloat16",
        "whole-int4-bfloat16",
        "pruned-10-int8-bfloat16",
    ]
    assert len({each.name for each in found}) == len(found)
    sizes = [cost.parameters_of(replace(info, config=each.config)) for each in found if each.kind == STUDENT]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] < 0.75 * cost.parameters_of(info)
    for each in found:  # the time grid stays: same steps, same lookahead, same past
        own, encoder = info.config.encoder, each.config.encoder
        for name in ("subsampling", "streaming_step_size", "streaming_chunk_size", "max_cached_frames"):
            assert getattr(encoder, name) == getattr(own, name)


def test_pruning_half_halves_heads_units_and_channels() -> None:
    shape = plan.pruned_shape(PRESETS["base"].encoder, 0.5)
    assert shape is not None
    assert shape.layer_heads == [4] * 4 and shape.layer_ffn == [256] * 8 and shape.layer_channels == [64] * 4


def _candidate(total_bytes: int, call_ms: float, kind: str = KEPT) -> Candidate:
    return Candidate(kind, PRESETS["small"], "int8", "float", cost=Cost(1, total_bytes, 0, 1.0, 500, call_ms))


def test_the_first_that_keeps_the_budget_is_chosen() -> None:
    found = [_candidate(3000, 1), _candidate(2000, 9), _candidate(1000, 2), _candidate(500, 1, PRUNED)]
    assert plan.choose(found, Budget(2000), True) == found[1:]
    assert plan.choose(found, Budget(2000, 5), True) == found[2:]
    assert plan.choose(found, Budget(2000, 5), False) == found[2:3]  # what needs training needs data
    assert plan.choose(found, Budget(latency_ms=5), True) == [found[0], *found[2:]]


def test_an_impossible_budget_is_refused_with_the_nearest_possible_one() -> None:
    found = [_candidate(300_000, 1), _candidate(100_000, 2, PRUNED)]
    with pytest.raises(ValueError, match=r"keeps 50 KB \(the least that can be: 100 KB\)$"):
        plan.choose(found, Budget(50_000), True)
    with pytest.raises(ValueError, match=r"the least that can be: 300 KB\) without training; --recipe and --data"):
        plan.choose(found, Budget(200_000), False)
    with pytest.raises(ValueError, match=r"keeps 0\.5 ms for 500 frames \(the least: 1 ms\)"):
        plan.choose(found, Budget(latency_ms=0.5), True)


def test_where_nothing_can_be_priced_the_reason_is_told() -> None:
    def price(candidate: Candidate) -> cost.Cost:
        raise ValueError("export to Ethos-U needs Vela")

    with pytest.raises(ValueError, match="needs Vela"):
        list(plan.priced([_candidate(100, 1.0)], price))
