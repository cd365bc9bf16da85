"""Bundles for OpenVINO, from the command line to what they hear."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kouling.cli import main
from tests.spoken import ORDERS, copy_recordings, heard

pytest.importorskip("openvino", reason="OpenVINO: pip install 'kouling[openvino]'", exc_type=ImportError)
pytest.importorskip("nncf", reason="NNCF: pip install 'kouling[openvino]'", exc_type=ImportError)


@pytest.mark.parametrize(("scheme", "least_db"), [("float", 90), ("dynamic", 25), ("static", 22)])
def test_a_bundle_hears_what_the_model_hears(scheme: str, least_db: float, tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    copy_recordings(recordings)
    out = tmp_path / "bundle"
    command = ["export", "en-small", "--target", "openvino", "--scheme", scheme, "--recordings", str(recordings)]
    assert main([*command, "-o", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["parity"]["passed"] and report["parity"]["snr_db"] > least_db
    assert heard(out) == ORDERS
