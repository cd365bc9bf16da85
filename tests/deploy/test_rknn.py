"""Bundles for Rockchip's NPUs, from the command line to what they hear: with a stand-in of RKNN Toolkit, which runs the
step in ONNX Runtime, and with the toolkit itself where it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kouling.cli import main
from kouling.deploy import rknn
from tests.spoken import ORDERS, copy_recordings, heard, proven_export

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# Lines of a real build, shortened.
LOG = """\
D RKNN: [09:16:01.405] ID OpType DataType Target InputShape ...
D RKNN: [09:16:01.405] 0 InputOperator INT8 CPU \\ (1,3,64) 0/0/0 0 InputOperator:features
D RKNN: [09:16:01.405] 9 Reshape INT8 NPU (1,3,64),(4) (1,3,1,64) 0/0/0 0 Reshape:features_rs
D RKNN: [09:16:01.405] 24 exNorm INT8 CPU (1,64,1,1),(1,64,1,1),.. (1,64,1,1) 0/0/0 0 exNorm:node_layer_norm#1
D RKNN: [09:16:01.405] 26 ConvExSwish INT8 NPU (1,64,1,1),(256,64,1,1) (1,256,1,1) 3045/1024/3045 18 Conv:a
D RKNN: [09:16:01.405] 27 ConvExSwish INT8 NPU (1,64,1,1),(256,64,1,1) (1,256,1,1) 3045/1024/3046 18 Conv:a
D RKNN: [09:16:01.405] 48 OutputOperator INT8 CPU (1,16,64) \\ 0/0/0 1 OutputOperator:a
D RKNN: [09:16:01.408] Total Internal Memory Size: 23.375KB
D RKNN: [09:16:01.408] Total Weight Memory Size: 229.812KB
"""
STAND_IN = f"""
import numpy as np
import onnxruntime


class RKNN:
    def __init__(self, verbose): pass
    def config(self, target_platform, optimization_level): return 0
    def load_onnx(self, model):
        self.session = onnxruntime.InferenceSession(model)
        return 0
    def build(self, do_quantization, dataset):
        rows = open(dataset).read().split("\\n")
        assert do_quantization and len(rows) > 50 and np.load(rows[0].split()[0]).ndim == 3
        print({LOG!r}, flush=True)
        return 0
    def export_rknn(self, path):
        open(path, "wb").write(b"for the device")
        return 0
    def init_runtime(self): return 0
    def inference(self, inputs, data_format):
        return self.session.run(None, dict(zip([each.name for each in self.session.get_inputs()], inputs)))
"""
REFUSING = STAND_IN.replace(
    f"print({LOG!r}, flush=True)\n        return 0", 'print("E no such operator")\n        return 1'
)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    (tmp_path / "recordings").mkdir()
    copy_recordings(tmp_path / "recordings")
    return tmp_path / "recordings"


def stand_in(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "rknn").mkdir()
    (folder / "rknn" / "__init__.py").write_text("")
    (folder / "rknn" / "api.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv(rknn.PYTHON, sys.executable)


def test_what_a_build_says() -> None:
    estimate, placed = rknn.read_log(LOG, "rv1106")
    assert (estimate.npu_operators, estimate.cpu_operators, estimate.total_cycles) == (3, 1, 6091)
    assert (estimate.internal_bytes, estimate.weight_bytes) == (23936, 235327)
    assert [(each.kind, each.count, each.on) for each in placed] == [
        ("ConvExSwish", 2, "NPU"),
        ("Reshape", 1, "NPU"),
        ("exNorm", 1, "CPU"),
    ]


def test_a_bundle_hears_what_the_model_hears(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(tmp_path, STAND_IN, monkeypatch)
    out = tmp_path / "bundle"
    command = ["export", "en-small", "--target", "rknn", "--accelerator", "rv1106", "--recordings", str(recordings)]
    assert main([*command, "--require-full-npu", "-o", str(out)]) == 1
    said = capsys.readouterr()
    assert "on the CPU: 1 exNorm: the NPU of rv1106 has no such operator" in " ".join(said.out.split())
    assert "1 operators run on the CPU" in said.err
    assert heard(out) == ORDERS
    assert (out / rknn.COMPILED).read_bytes() == b"for the device"
    assert json.loads((out / "rknn.json").read_text())["accelerator"] == "rv1106"
    page = (out / "README.md").read_text()
    assert "`step.rknn`: the step for the device. `model.onnx` is the same before" in page
    pytest.importorskip("matplotlib")
    capsys.readouterr()
    assert main(["compare", str(out), str(out), "--json", "--report", str(tmp_path / "report")]) == 0
    beside = json.loads(capsys.readouterr().out)["models"][1]
    assert (beside["model_bytes"], beside["variable_bytes"]) == (235327, 23936)
    assert beside["runtime"] == "rv1106 (estimated)" and not beside["latency"] and beside["private_bytes"] is None
    assert main(["measure", "--model", str(out), "--memory", "1MB"]) == 0
    assert main(["measure", "--model", str(out), "--latency", "1ms"]) == 2
    assert "nothing says how long a call takes; allowed here: a budget of memory" in capsys.readouterr().err


def test_what_the_toolkit_refuses_is_one_line_and_nothing_is_left(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(tmp_path, REFUSING, monkeypatch)
    command = ["export", "en-small", "--target", "rknn", "--recordings", str(recordings)]
    assert main([*command, "-o", str(tmp_path / "bundle")]) == 2
    assert "RKNN Toolkit refuses en-small for rk3588: E no such operator" in capsys.readouterr().err
    assert not list(tmp_path.glob("bundle*"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "make it with: python3 -m venv .venv-rknn &&"),
        (["--accelerator", "rk1"], "no accelerator 'rk1'; allowed: rk3588"),
        (["--scheme", "float"], "rknn takes static, not float"),
    ],
)
def test_mistakes_are_one_line(
    given: list[str],
    told: str,
    recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(rknn.PYTHON, raising=False)
    monkeypatch.chdir(tmp_path)
    if "--accelerator" in given:
        monkeypatch.setenv(rknn.PYTHON, sys.executable)
    command = ["export", "en-small", "--target", "rknn", "--recordings", str(recordings), *given]
    assert main([*command, "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


def test_the_real_simulator_hears_what_the_model_hears(tmp_path: Path) -> None:
    try:
        rknn.python()
    except ValueError as error:
        pytest.skip(str(error))
    proven_export("rknn", "static", 22, tmp_path)
