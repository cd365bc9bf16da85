"""The clients in examples/clients, which drive an exported model without kouling, hear what kouling hears."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kouling import audio, recognizer
from kouling.cli import main
from tests.spoken import EXAMPLES

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
CLIENTS = EXAMPLES / "clients"
SPOKEN = ("en-orders", "en-digits-in-noise", "en-not-a-command")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "bundle"
    assert main(["export", "en-small", "--target", "onnx", "-o", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("wav")
    return [write(folder / f"{name}.wav", audio.read(EXAMPLES / f"{name}.ogg")) for name in SPOKEN]


def write(path: Path, samples: Any, rate_hz: int = 16000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate_hz, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def run(*command: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)


def hears_what_kouling_hears(client: list[str | Path], bundle: Path, recordings: list[Path]) -> None:
    stream = recognizer.load(bundle)
    for recording in recordings:
        samples = audio.read(recording)
        stream.reset()
        wanted = stream.accept(samples) + stream.finish()
        done = run(*client, bundle, recording)
        assert (done.returncode, done.stderr) == (0, "")
        found = [line.split() for line in done.stdout.splitlines()]
        assert [line[3] for line in found] == [command.name for command in wanted] != []
        for line, command in zip(found, wanted, strict=True):
            assert float(line[0]) == pytest.approx(command.start_s, abs=0.002)
            assert float(line[1]) == pytest.approx(command.end_s, abs=0.002)
            assert float(line[2].rstrip("%")) == pytest.approx(100 * command.confidence, abs=1)


def test_the_python_client(exported: Path, recordings: list[Path]) -> None:
    hears_what_kouling_hears([sys.executable, CLIENTS / "python" / "listen.py"], exported, recordings)


def test_the_javascript_client(exported: Path, recordings: list[Path]) -> None:
    folder = CLIENTS / "javascript"
    if shutil.which("node") is None or run("node", "-e", "import('onnxruntime-node')", folder=folder).returncode:
        pytest.skip("needs node, and `npm install` in examples/clients/javascript")
    hears_what_kouling_hears(["node", folder / "listen.mjs"], exported, recordings)


def test_the_cpp_client(exported: Path, recordings: list[Path], tmp_path: Path) -> None:
    (tmp_path / "try.cpp").write_text("#include <onnxruntime_cxx_api.h>\nint main() { Ort::Env environment; }\n")
    flags = ["-std=c++17", "-O1", f"-I{tmp_path}", "-I/usr/include/onnxruntime"]
    linked = ["-lonnxruntime", "-lm"]
    if (
        shutil.which("c++") is None
        or run("c++", *flags, tmp_path / "try.cpp", *linked, "-o", tmp_path / "try").returncode
    ):
        pytest.skip("needs a C++ compiler and libonnxruntime-dev")
    assert run(sys.executable, ROOT / "engine" / "amalgamate.py", tmp_path).returncode == 0
    assert run("cc", "-O1", "-w", "-c", tmp_path / "kouling.c", "-o", tmp_path / "kouling.o").returncode == 0
    program = tmp_path / "listen"
    sources = [CLIENTS / "cpp" / "listen.cpp", tmp_path / "kouling.o"]
    built = run("c++", *flags, "-Wall", "-Wextra", "-Werror", *sources, *linked, "-o", program)
    assert built.returncode == 0, built.stderr
    hears_what_kouling_hears([program], exported, recordings)


@pytest.mark.parametrize(
    "settings", [{}, {"hesitation_s": 1.2}, {"hesitation_s": 0.5, "isolation_s": 0, "settle_s": 0.1}]
)
def test_the_clients_decide_what_kouling_decides(settings: dict[str, float]) -> None:
    """Of real log-probabilities, made doubtful, in one stream."""
    runner = recognizer.load_runner(recognizer.MODELS / "en-small" / "step.onnx")
    info = replace(runner.info, decoder={**runner.info.decoder, **settings})
    samples = np.concatenate([audio.read(EXAMPLES / f"{name}.ogg") for name in SPOKEN])
    log_probs = 0.6 * recognizer.Recognizer(runner).log_probs(samples)  # type: ignore[arg-type]
    log_probs -= np.log(np.exp(log_probs).sum(axis=1, keepdims=True))
    decoder = recognizer.decoder_of(info, recognizer.own_commands(info))
    wanted = decoder.accept(log_probs) + decoder.flush()
    words = runpy.run_path(str(CLIENTS / "python" / "words.py"))["Words"](json.loads(info.to_json()))
    found = [word for frame in log_probs for word in words.accept(frame)] + words.decided()
    assert [name for *_, name in found] == [command.name for command in wanted]
    assert len(wanted) > 4
    np.testing.assert_allclose(
        [event[:3] for event in found], [(c.start_s, c.end_s, c.confidence) for c in wanted], atol=1e-3
    )


def test_another_rate_is_one_line(exported: Path, tmp_path: Path) -> None:
    wrong = write(tmp_path / "wrong.wav", np.zeros(8000, np.int16), 8000)
    done = run(sys.executable, CLIENTS / "python" / "listen.py", exported, wrong)
    assert done.returncode == 1 and done.stderr == f"{wrong}: not 16 kHz, mono, 16 bits\n"


def test_the_parity_test_of_a_bundle_takes_logits_and_log_probabilities(exported: Path, tmp_path: Path) -> None:
    golden = np.fromfile(exported / "golden" / "log_probs.f32", np.float32).reshape(-1, 17)
    for name, frames, passes in (
        ("log-probs", golden, True),
        ("logits", golden + 3, True),
        ("zeros", 0 * golden, False),
    ):
        frames.tofile(tmp_path / name)
        done = run(sys.executable, exported / "parity.py", tmp_path / name)
        assert (done.returncode == 0) == passes
        if passes:
            assert float(done.stdout.split()[-1]) < 1e-4  # the largest difference
