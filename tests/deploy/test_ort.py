"""Bundles for ONNX Runtime, from the command line to what they hear."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kouling.cli import main
from kouling.deploy.graph import Description
from kouling.deploy.onnx import open_session
from kouling.measure import latency, memory
from tests.spoken import ORDERS, heard

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(("scheme", "least_db"), [("float", 90), ("dynamic", 25)])
def test_a_bundle_hears_what_the_model_hears(scheme: str, least_db: float, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    assert main(["export", "en-small", "--target", "onnx", "--scheme", scheme, "-o", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["parity"]["passed"] and report["parity"]["snr_db"] > least_db
    assert heard(out) == ORDERS


def test_the_same_in_ort_format_driven_by_its_names_alone(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    assert main(["export", "en-small", "--target", "onnx", "-o", str(out)]) == 0
    told = Description.load(out / "model.json")
    state = np.split(
        np.fromfile(out / "state.bin", np.float32), np.cumsum([np.prod(spec.shape) for spec in told.inputs[1:-1]])
    )
    golden = np.fromfile(out / "golden" / "log_probs.f32", np.float32)
    features = np.fromfile(out / "golden" / "features.f32", np.float32)[: np.prod(told.inputs[0].shape)]
    found = []
    for file in ("model.onnx", "model.ort"):
        session = open_session(out / file)
        given = session.get_inputs()
        feeds = {spec.name: array.reshape(spec.shape) for spec, array in zip(given, [features, *state], strict=True)}
        found.append(session.run(["logits"], feeds)[0][0, 0])
    assert np.abs(found[0] - found[1]).max() < 1e-3
    log_probs = found[1] - found[1].max()
    log_probs -= np.log(np.exp(log_probs).sum())
    assert np.abs(log_probs - golden[: len(log_probs)]).max() < 1e-3


def test_it_stands_beside_what_it_was_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(latency, "TURNS", 2)
    monkeypatch.setattr(memory, "of_fresh_process", lambda *_: None)
    out = tmp_path / "bundle"
    assert main(["export", "en-small", "--target", "onnx", "--scheme", "dynamic", "-o", str(out)]) == 0
    capsys.readouterr()
    assert main(["compare", "en-small:onnx", str(out), "--json"]) == 0
    one, other = json.loads(capsys.readouterr().out)["models"]
    assert (one["runtime"], other["runtime"]) == ("onnx", "onnx-bundle (dynamic)")
    assert other["model_bytes"] == (out / "model.onnx").stat().st_size < one["model_bytes"]
    assert main(["measure", "--model", str(out), "--runtime", "litert"]) == 2
    assert "no model for litert; make one with: kouling export" in capsys.readouterr().err


def test_a_file_takes_no_scheme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "en-small", "--target", "onnx", "--scheme", "dynamic", "-o", str(tmp_path / "step.onnx")]
    assert main(command) == 2
    assert "--scheme goes with" in capsys.readouterr().err and not list(tmp_path.iterdir())
