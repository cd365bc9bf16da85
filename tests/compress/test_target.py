from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs kouling[train]")
pytest.importorskip("ai_edge_litert", reason="LiteRT: pip install 'kouling[ethos-u]'")
pytest.importorskip("ethosu.vela", reason="Vela: pip install 'kouling[ethos-u]'", exc_type=ImportError)

from kouling import cli, recognizer  # noqa: E402
from kouling.compress import plan  # noqa: E402
from kouling.compress.plan import KEPT, PRUNED  # noqa: E402
from tests.spoken import ORDERS, copy_recordings, heard  # noqa: E402


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    copy_recordings(folder)
    return folder


def test_a_model_for_an_npu_keeps_a_budget_of_flash_and_sram(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    every, out = plan.candidates, tmp_path / "out"
    few = {KEPT: 0.0, PRUNED: 0.5}  # one of each; the others take a quarter of a minute each
    monkeypatch.setattr(
        plan, "candidates", lambda *given: [each for each in every(*given) if few.get(each.kind) == each.share]
    )
    command = ["compress", "en-small", "--target", "ethos-u", "--recordings", str(recordings), "--memory", "250KB"]
    assert cli.main([*command, "-o", str(out)]) == 0
    result = json.loads((out / "result.json").read_text())["result"]
    assert result["kept"] and [stage["name"] for stage in result["stages"]] == ["as trained", "whole-int8-int8"]
    told, cost = json.loads((out / "ethos-u" / "ethos-u.json").read_text()), result["stages"][-1]["cost"]
    assert told["accelerator"] == "ethos-u55-128"
    assert (cost["model_bytes"], cost["variable_bytes"]) == (told["storage_bytes"], told["sram_bytes"])
    assert cost["call_ms"] == pytest.approx(cost["frames"] / 3 * told["time_ms"])
    prices = {each["name"]: each["cost"]["total_bytes"] for each in result["considered"]}
    assert prices["whole-int8-int8"] == pytest.approx(cost["total_bytes"], rel=0.01)  # of what it has learnt
    assert prices["pruned-50-int8-int8"] < 0.75 * cost["total_bytes"]
    assert heard(out / "ethos-u") == heard(out) == ORDERS
    assert "ethos-u55-128" in (out / "index.html").read_text() and (out / recognizer.ENGINE_FILE).exists()
    assert cli.main([*command, "-o", str(tmp_path / "other"), "--candidate", "whole-int4-bfloat16"]) == 2
    assert "no candidate 'whole-int4-bfloat16' for ethos-u (ethos-u55-128); allowed: " in capsys.readouterr().err


def test_an_accelerator_that_is_none_is_refused(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compress", "en-small", "--target", "ethos-u", "--accelerator", "ethos-u99", "--memory", "1MB"]
    assert cli.main([*command, "--recordings", str(recordings), "-o", str(tmp_path / "out")]) == 2
    assert "no accelerator 'ethos-u99'; allowed: ethos-u55-32," in capsys.readouterr().err
