"""Bundles for OpenVINO, from the command line to what they hear."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kouling import audio, recognizer
from kouling.cli import main

pytest.importorskip("openvino", reason="OpenVINO: pip install 'kouling[openvino]'", exc_type=ImportError)
pytest.importorskip("nncf", reason="NNCF: pip install 'kouling[openvino]'", exc_type=ImportError)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("scheme", "least_db"), [("float", 90), ("dynamic", 25), ("static", 22)])
def test_a_bundle_hears_what_the_model_hears(scheme: str, least_db: float, tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for number in range(8):
        source = ROOT / "examples" / ("en-orders.ogg", "en-digits-in-noise.ogg")[number % 2]
        (recordings / f"{number}.ogg").write_bytes(source.read_bytes())
    out = tmp_path / "bundle"
    command = ["export", "en-small", "--target", "openvino", "--scheme", scheme, "--recordings", str(recordings)]
    assert main([*command, "-o", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["parity"]["passed"] and report["parity"]["snr_db"] > least_db
    stream = recognizer.load(out)
    samples = audio.read(ROOT / "examples" / "en-orders.ogg")
    assert [command.name for command in stream.accept(samples) + stream.finish()] == ["go", "left", "stop", "yes"]
