"""The benchmark counts what a step does, compares with the best right answer, and shows what it left out. No peers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench import count, report, result
from bench.result import AIMS, Floor, Result, Row
from kouling.config import PRESETS, Config, EncoderConfig, FeatureConfig
from tests.shapes import SHAPES, SMALL_ENCODER

TINY = Config(
    features=FeatureConfig(num_mels=16),
    encoder=EncoderConfig(
        layers=3,
        attention_heads=2,
        hidden_size=24,
        conv_kernel_size=5,
        ffn_expansion=2,
        stem_channels=6,
        stem_layers=2,
        subsampling=4,
        streaming_chunk_size=12,
        streaming_step_size=4,
        max_cached_frames=40,
    ),
)
SHAPED = [replace(TINY, encoder=replace(SMALL_ENCODER, **shape)) for shape in SHAPES.values()]


def row(runtime: str, median_us: float, host: str = "Python", **changes: Any) -> Row:
    times = {"median_us": median_us, "p5_us": 0.9 * median_us, "p95_us": 2 * median_us}
    made = Row(
        *("en-small", "step", runtime, "dynamic int8", "", host),
        snr_db=40.0,
        calls=10,
        **times,
        memory_kb={"resident": 50000, "anonymous": 20000, "peak": 60000},
        before_kb={"resident": 30000, "anonymous": 15000, "peak": 30000},
    )
    return replace(made, **changes)


# What a step does


@pytest.mark.parametrize(
    "config",
    [PRESETS["base"], PRESETS["small"], TINY, *SHAPED],
    ids=["base", "small", "tiny", *SHAPES],
)
def test_work_is_what_the_encoder_does_and_holds(config: Config) -> None:
    torch = pytest.importorskip("torch", reason="the encoder needs torch", exc_type=ImportError)
    from torch.utils.flop_counter import FlopCounterMode

    from kouling.encoder import Encoder

    encoder = Encoder(config, num_units=7).eval()
    features = torch.zeros(1, config.encoder.subsampling, config.features.num_mels)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(features, encoder.initial_state())
    work = count.per_frame(config, 7)
    # In linear attention PyTorch multiplies a frame's query with its own key and value; adding these to sums is less.
    linear = config.encoder.attention == "linear"
    twice = sum(shape.attention_width for shape in config.encoder.blocks) if linear else 0
    assert work.macs == counter.get_total_flops() / 2 - twice
    # Batch normalisation and the gains in front of linear layers are folded, so they are not counted.
    parameters = {name: tensor.numel() for name, tensor in encoder.named_parameters()}
    folded = ("batch_norm", "attention.norm", "convolution.norm", "feed_forward_in.norm", "feed_forward_out.norm")
    kept = {name: size for name, size in parameters.items() if not any(part in name for part in folded)}
    matrix = {
        name: size
        for name, size in kept.items()
        if name.endswith("weight") and "norm" not in name and "depthwise" not in name
    }
    scales = sum(parameters[name.removesuffix("weight") + "bias"] for name in matrix)
    assert work.weight_bytes == sum(matrix.values()) + 4 * (scales + sum(kept.values()) - sum(matrix.values()))


# Who is best


def test_the_ratio_is_against_the_fastest_peer_and_from_the_same_host_against_the_fastest_there() -> None:
    rows = [
        row(result.ENGINE, 10.0, "C"),
        row(result.ENGINE, 20.0),
        row("slow", 90.0),
        row("fast", 50.0, "C++"),
        row("middle", 60.0),
        row("elsewhere", 1.0, kind="500"),
        row("other model", 1.0, model="en-base"),
    ]
    found = result.compare(rows, "en-small", "step", "dynamic int8", Floor(2.0, 4.0, 0.5))
    assert found is not None and found.peer is not None
    assert (found.peer.runtime, found.ratio, found.from_python) == ("fast", 5.0, 3.0)
    assert found.above_floor == 2.5
    assert report.verdict(found) == f"{AIMS['en-small', 'step']:.0f}× reached"


def test_a_fast_wrong_answer_is_never_the_best() -> None:
    rows = [row(result.ENGINE, 10.0, "C"), row("right", 50.0), row("wrong", 5.0, snr_db=result.LEAST_SNR_DB - 0.1)]
    best = result.best_peer(rows, "en-small", "step")
    assert best is not None and best.runtime == "right"
    assert [each.runtime for each in result.wrong(rows)] == ["wrong"]
    for scheme in result.CANDID:
        candid = [replace(each, scheme=scheme) for each in rows]
        assert result.best_peer(candid, "en-small", "step") == replace(best, scheme=scheme)
        assert result.wrong(candid) == []
    assert result.best_peer([rows[2]], "en-small", "step") is None
    nothing = result.compare([rows[0], rows[2]], "en-small", "step", "dynamic int8")
    assert nothing is not None and nothing.ratio is None
    assert result.compare([replace(rows[0], snr_db=3.0), rows[1]], "en-small", "step", "dynamic int8") is None


def test_memory_of_the_model_is_what_it_adds() -> None:
    measured = row("peer", 1.0)
    assert (measured.model_kb("anonymous"), measured.model_kb("peak")) == (5000, 30000)
    assert replace(measured, before_kb={}).model_kb("peak") == 60000


# What is shown


def test_the_page_shows_every_variant_and_what_is_missing() -> None:
    own = [row(result.ENGINE, time, "C", scheme=scheme) for time, scheme in ((4.5, "int8"), (2.5, "int4"))]
    rows = [*own, row("peer", 1234.0, kind="500", snr_db=12.0), row("peer", 40.0)]
    found = Result(
        machine={"cpu": "a processor", "core": 1, "cores": 2, "load_before": 0, "load_after": 0, "date": "today"},
        versions={"peer": "1.0"},
        rounds=3,
        frames={"en-small step": 3, "en-small 300": 300, "en-small 500": 501},
        rows=rows,
        work={},
        peaks={},
        floors={"en-small step": Floor(2.0, 1.0, None)},
        failures={"another peer": "no wheel for this system"},
    )
    page = report.markdown(found)
    assert (
        "| en-small, one step | int8 | peer dynamic int8 | 4.50 µs | 40.0 µs | 8.89× | 5× reached | – | 2.00 µs |"
        in page
    )
    assert "| en-small, one step | int4 | peer dynamic int8 | 2.50 µs | 40.0 µs | 16.00× | 5× reached | – | – |" in page
    assert "1.23 ms (1.11–2.47) ✗ | 12 |" in page and "501 frames" in page
    assert "✗ peer dynamic int8 (Python), en-small 500: WRONG, below 20 dB, not counted." in page
    assert "Not measured: another peer: no wheel for this system" in page
