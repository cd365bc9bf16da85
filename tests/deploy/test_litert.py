"""LiteRT and Ethos-U: whole bundles of a shipped model, from the command line to what it hears."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kouling import audio, recognizer
from kouling.cli import main
from kouling.deploy import bundle, ethos_u, litert
from kouling.deploy.graph import BundleRunner, Description
from kouling.deploy.speech import made_up
from tests.spoken import ORDERS, copy_recordings, heard

pytest.importorskip("litert_torch", reason="LiteRT's converter: pip install 'kouling[litert]'", exc_type=ImportError)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    copy_recordings(folder)
    return folder


@pytest.fixture(scope="module")
def compiled(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ethosu.vela", reason="Vela: pip install 'kouling[ethos-u]'", exc_type=ImportError)
    out = tmp_path_factory.mktemp("ethos-u") / "bundle"
    command = ["export", "en-small", "--target", "ethos-u", "--require-full-npu"]
    assert main([*command, "--recordings", str(recordings), "-o", str(out)]) == 0
    return out


@pytest.mark.parametrize("scheme", ["float", "dynamic"])
def test_a_bundle_hears_what_the_model_hears(scheme: str, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    assert main(["export", "en-small", "--target", "litert", "--scheme", scheme, "-o", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["parity"]["passed"] and report["parity"]["snr_db"] > {"float": 90, "dynamic": 20}[scheme]
    assert heard(out) == ORDERS
    told = Description.load(out / "model.json")
    assert told.copied and told.scheme == scheme
    assert {each.name for each in out.iterdir()} >= {"README.md", "card.md", "parity.py", "frontend.kouling", "golden"}


def test_int8_covers_no_numbers_that_a_sigmoid_cannot_tell_apart(compiled: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    read = litert.sigmoids(compiled / "step.tflite")
    assert set(read.values()) == {True, False}  # gates, and numbers that are multiplied with their own sigmoid
    interpreter = Interpreter(model_path=str(compiled / "step.tflite"))
    found = {each["name"]: each["quantization"] for each in interpreter.get_tensor_details()}
    for name, both in read.items():
        scale, zero = found[name]
        assert scale * (-128 - zero) >= -1.05 * litert.SATURATED
        assert not both or scale * (127 - zero) <= 1.05 * litert.SATURATED


def test_every_operator_runs_on_the_npu_within_its_memory(compiled: Path) -> None:
    told = json.loads((compiled / "ethos-u.json").read_text())
    assert told["cpu_operators"] == 0 < told["npu_operators"]
    assert told["sram_bytes"] <= 20 * 1024 and told["storage_bytes"] <= 250 * 1024


def test_static_int8_hears_and_its_state_goes_back_as_it_is(compiled: Path) -> None:
    told = Description.load(compiled / "model.json")
    assert told.copied
    assert {spec.dtype for spec in (*told.inputs, *told.outputs)} == {"int8"}
    assert heard(compiled) == ORDERS
    assert json.loads((compiled / "report.json").read_text())["parity"]["snr_db"] > 22  # without equalisation: 10


def test_the_parity_test_of_a_bundle_tells_right_from_wrong(compiled: Path, tmp_path: Path) -> None:
    golden = compiled / "golden" / "log_probs.f32"
    assert compare(compiled, golden) == 0
    wrong = np.fromfile(golden, dtype=np.float32)
    wrong[::2] = 0
    wrong.tofile(tmp_path / "wrong.f32")
    assert compare(compiled, tmp_path / "wrong.f32") == 1
    wrong[:-17].tofile(tmp_path / "short.f32")
    assert compare(compiled, tmp_path / "short.f32") == 1


def compare(folder: Path, mine: Path) -> int:
    command = [sys.executable, str(folder / "parity.py"), str(mine)]
    return subprocess.run(command, check=False, capture_output=True).returncode


def test_a_state_that_is_not_carried_on_is_found_out(compiled: Path) -> None:
    from kouling.deploy import parity

    class Forgetful(BundleRunner):
        def step(self, features, state):  # type: ignore[no-untyped-def]
            return super().step(features, self.initial_state())[0], state

    told = Description.load(compiled / "model.json")
    runner = Forgetful(compiled, bundle.LOADERS["ethos-u"](told, compiled))
    samples = np.tile(audio.read(ROOT / "examples" / "en-orders.ogg"), 2)
    found = parity.compare(
        runner, recognizer.load_runner(recognizer.MODELS / "en-small" / "step.onnx"), "static", samples
    )
    assert not found.passed


def test_another_accelerator_and_many_frames_at_once(compiled: Path, tmp_path: Path) -> None:
    estimate, placed = ethos_u.compile_for(compiled / "step.tflite", "ethos-u85-256", tmp_path / "x.tflite")
    assert estimate.cpu_operators == 0 and [each.on for each in placed] == ["NPU"]


def test_vela_says_what_stays_on_the_cpu(tmp_path: Path) -> None:
    pytest.importorskip("ethosu.vela", reason="Vela: pip install 'kouling[ethos-u]'", exc_type=ImportError)
    out = tmp_path / "float"
    assert main(["export", "en-commands-tiny", "--target", "litert", "-o", str(out)]) == 0
    _, placed = ethos_u.compile_for(out / "step.tflite", "ethos-u55-128", tmp_path / "x.tflite")
    assert any(each.on == "CPU" and "unsupported" in each.why.lower() for each in placed)


def test_fewer_levels_of_weights_take_less_flash_and_time(compiled: Path, recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    command = ["export", "en-small", "--target", "ethos-u", "--levels", "31", "--recordings", str(recordings)]
    assert main([*command, "-o", str(out)]) == 0
    whole, fewer = (json.loads((folder / "ethos-u.json").read_text()) for folder in (compiled, out))
    assert fewer["storage_bytes"] < 0.75 * whole["storage_bytes"]
    assert fewer["total_cycles"] < 0.85 * whole["total_cycles"]
    assert heard(out) == ORDERS


def test_what_vela_estimates_stands_beside_what_is_measured(
    compiled: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "bundle"
    command = ["export", "en-small", "--target", "litert", "--scheme", "static", "--recordings", str(recordings)]
    assert main([*command, "-o", str(out)]) == 0
    capsys.readouterr()
    assert main(["compare", str(out), str(compiled), "--json", "--report", str(tmp_path / "report")]) == 0
    here, npu = json.loads(capsys.readouterr().out)["models"]
    told = json.loads((compiled / "ethos-u.json").read_text())
    assert (here["runtime"], npu["runtime"]) == ("litert (static)", "ethos-u55-128 (estimated)")
    assert here["model_bytes"] == (out / "step.tflite").stat().st_size and here["latency"]["step"]["calls"]
    assert (npu["model_bytes"], npu["variable_bytes"]) == (told["storage_bytes"], told["sram_bytes"])
    assert npu["latency"]["step"]["median"] == told["time_ms"] and npu["private_bytes"] is None
    assert npu["latency"]["300"]["median"] == pytest.approx(100 * told["time_ms"])
    assert main(["measure", "--model", str(compiled), "--report", str(tmp_path / "npu")]) == 0
    assert (tmp_path / "npu" / "index.html").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--scheme", "static"], "static int8 is calibrated by recordings; give --recordings"),
        (["--frames", "4"], "frames is 4; allowed: multiples of 3"),
        (["--recordings", "nowhere"], "nowhere: no such folder or recording"),
        (["--levels", "30"], "levels is 30; allowed: odd numbers from 3 to 127"),
        (
            ["--accelerator", "ethos-u55-128"],
            "--accelerator goes with --target ethos-u or executorch-ethos-u or rknn, not",
        ),
        (["--weights", "int4"], "--weights goes with --target engine or c-array, not with litert"),
    ],
)
def test_wrong_orders_are_one_line(
    given: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "en-small", "--target", "litert", *given, "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_recordings_that_calibrate_nothing_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import soundfile

    command = ["export", "en-small", "--target", "litert", "--scheme", "static", "-o", str(tmp_path / "out")]
    for name, samples, told in (
        ("silent", np.zeros(16000 * 30, np.int16), "are silent"),
        ("short", made_up(3), "s to calibrate by; needed: 10 s"),
        ("noise", made_up(40), "the model hears speech in"),
    ):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, samples, 16000)
        assert main([*command, "--recordings", str(path)]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["export", "en-small", "--target", "litert", "-o", str(tmp_path)]) == 2
    assert "exists; give a folder that does not" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("content", ["", "{}", '{"info": 3}', "nonsense"])
def test_a_broken_description_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(ValueError, match="no description of an exported model"):
        bundle.load(tmp_path)
