"""`kouling compress` from budget to report: without data here, with data on a model that is trained in a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="compression needs torch")
pytest.importorskip("matplotlib", reason="reports need matplotlib")

from kouling import checkpoint, cli, recognizer  # noqa: E402
from kouling.checkpoint import ModelInfo  # noqa: E402
from kouling.compress import cost, plan  # noqa: E402
from kouling.compress.lessons import Data  # noqa: E402
from kouling.compress.plan import PRUNED, STUDENT, Budget  # noqa: E402
from kouling.compress.report import page  # noqa: E402
from kouling.compress.run import Compression  # noqa: E402
from kouling.config import PRESETS  # noqa: E402
from kouling.deploy.engine import Engine  # noqa: E402
from kouling.train.loop import Trainer  # noqa: E402

UNITS = ("<blank>", "<unknown>", "up", "down", "left")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    info = ModelInfo("some", "en", PRESETS["small"], UNITS, {}, {"licence": "Apache-2.0"})
    path = tmp_path / "some" / "model.safetensors"
    path.parent.mkdir()
    checkpoint.save(path, info, cost.random_weights(info))
    return path


def compress(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = cli.main(["compress", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_without_data_it_does_what_needs_none(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    status, printed, _ = compress(capsys, model, "--memory", "230KB", "-o", out, "--json")
    result = json.loads(printed)
    assert status == 0 and result["kept"] and not result["verified"]
    assert [stage["name"] for stage in result["stages"]] == ["as trained", "int8", "whole-int4-bfloat16"]
    assert result["stages"][-1]["accuracy"] is None
    sizes = [stage["cost"]["total_bytes"] for stage in result["stages"]]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] <= 230_000
    file = out / recognizer.ENGINE_FILE
    assert file.stat().st_size == result["stages"][-1]["cost"]["model_bytes"]
    made = Engine(file)
    assert made.info.units == UNITS and made.info.provenance["licence"] == "Apache-2.0"
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "not verified" in page and "whole-int4-bfloat16" in page
    assert json.loads((out / "result.json").read_text())["result"] == result


def test_a_finished_run_is_read_again_and_another_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (model, "--memory", "400KB", "-o", tmp_path / "out", "--json")
    first = compress(capsys, *arguments)
    again = compress(capsys, *arguments)
    stages = [json.loads(outcome[1])["stages"] for outcome in (first, again)]
    assert stages[0] == stages[1]  # times and all: nothing was measured anew
    status, _, told = compress(capsys, model, "--memory", "300KB", "-o", tmp_path / "out")
    assert status == 2 and "holds a compression with other settings" in told
    info, weights = checkpoint.load(model)
    checkpoint.save(model, info, {name: weight * 2 for name, weight in weights.items()})
    status, _, told = compress(capsys, *arguments)  # trained anew meanwhile, under the same name
    assert status == 2 and "holds a compression with other settings" in told


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "compress needs a budget: --memory 6MB, --latency 100ms, or both"),
        (["--memory", "6 bananas"], "--memory is '6 bananas'"),
        (["--memory", "-1MB"], "--memory is '-1MB'"),
        (["--memory", "10KB"], "no form of this model keeps 10 KB (the least that can be:"),
        (["--memory", "1MB", "--at", "0"], "--at is 0; allowed: 1 to 100000"),
        (["--memory", "1MB", "--max-loss", "-1"], "--max-loss is -1.0; allowed: 0 to 100"),
        (["--memory", "1MB", "--epochs", "0"], "--epochs is 0; allowed: 1 or more"),
        (["--memory", "1MB", "--workers", "-1"], "--workers is -1; allowed: 0 or more"),
        (["--memory", "1MB", "--target", "toaster"], "--target is 'toaster'; allowed: engine (int8 and int4"),
        (["--memory", "1MB", "--target", "ethos-u"], "--target ethos-u needs --recordings, a folder of real speech"),
        (["--memory", "1MB", "--recordings", "x"], "--accelerator and --recordings go with --target ethos-u"),
        (["--memory", "1MB", "--data", "x"], "--data without --recipe"),
        (["--memory", "1MB", "--teacher", "en-base"], "--teacher and --keep-scenes go with --recipe"),
        (
            ["--memory", "1MB", "--candidate", "x"],
            "no candidate 'x' for engine; allowed: whole-int8-float, whole-",
        ),
        (["--memory", "1MB", "--recipe", "no.toml"], "no.toml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], complaint: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, printed, told = compress(capsys, model, *arguments, "-o", tmp_path / "out")
    assert status == 2 and not printed and told.count("\n") == 1
    assert told.startswith("kouling: ") and complaint in told
    assert not (tmp_path / "out" / "index.html").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, told = compress(capsys, tmp_path / "none", "--memory", "1MB")
    assert status == 2 and "no checkpoint; allowed: en-" in told


@pytest.fixture(scope="module")
def trained(
    tiny_recipe: Callable[..., Any], data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Data]:
    """A recipe for a shape that the engine runs, and the model that it makes in a few seconds."""
    encoder = {"layers": 2, "attention_heads": 4, "hidden_size": 64, "conv_kernel_size": 5, "ffn_expansion": 2}
    grid = {"subsampling": 4, "streaming_chunk_size": 8, "streaming_step_size": 4, "max_cached_frames": 40}
    shape = {"features": {"num_mels": 16}, "encoder": {**encoder, **grid, "stem_channels": 16}}
    recipe = tiny_recipe(config=shape)
    out = tmp_path_factory.mktemp("trained")
    Trainer(recipe, [data], out, cache).run()
    info, weights = checkpoint.load(out / "model.safetensors")
    checkpoint.save(out / "model.safetensors", replace(info, decoder={"threshold": 0.35}), weights)
    return out / "model.safetensors", Data(recipe, [data], cache, out / "model.safetensors")


def carried_out(
    trained: tuple[Path, Data], out: Path, kind: str, weights: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """A compression that has but one choice: the first candidate of that kind."""
    path, data = trained
    found = [
        each for each in plan.candidates(checkpoint.load_info(path)) if (each.kind, each.weights) == (kind, weights)
    ]
    work = Compression(path, Budget(10**6, None, 100, 100.0), out, data, 1, 0)
    with monkeypatch.context() as patch:
        patch.setattr(plan, "candidates", lambda info, forms: found[:1])
        work.run(lambda line: None, lambda text, total: nullcontext(lambda done: None))
    page(work).write(out, work.to_dict())
    return work.to_dict()


def test_a_pruned_model_is_cut_tuned_and_verified(
    trained: tuple[Path, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = trained
    result = carried_out((path, replace(data, workers=1)), tmp_path, PRUNED, "int8", monkeypatch)
    names = [stage["name"] for stage in result["stages"]]
    assert names[:2] == ["as trained", "int8"] and names[-1].startswith("pruned-")
    assert f"{names[-1].rsplit('-', 2)[0]}, cut" in names and f"{names[-1].rsplit('-', 2)[0]}, tuned" in names
    assert result["verified"] and all(0 <= stage["accuracy"] <= 1 for stage in result["stages"])
    made = Engine(tmp_path / recognizer.ENGINE_FILE)
    assert made.info.config.encoder.layer_ffn and made.info.decoder["onset_s"] is not None
    assert made.info.provenance["compressed"]["form"] == names[-1]
    assert made.info.decoder["threshold"] == 0.35  # the whole model's
    small, large = (result["stages"][i]["cost"]["parameters"] for i in (-1, 0))
    assert 0 < small < large
    assert (tmp_path / "index.html").stat().st_size > 10_000


@pytest.fixture
def uncalibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's last minute takes longest, and is tested above: here a model is calibrated to nothing in particular."""

    def finish(folder: Path, scenes: Any, report: Any) -> None:
        info, weights = checkpoint.load(folder / "model.safetensors")
        checkpoint.save(folder / "model.safetensors", replace(info, decoder={"threshold": 0.4}), weights)

    monkeypatch.setattr("kouling.compress.lessons.finish", finish)


@pytest.mark.usefixtures("uncalibrated")
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_a_student_is_taught_from_nothing(
    weights: str, trained: tuple[Path, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = carried_out(trained, tmp_path, STUDENT, weights, monkeypatch)
    assert any(stage["name"].endswith(", taught") for stage in result["stages"])
    made, whole = Engine(tmp_path / recognizer.ENGINE_FILE).info, checkpoint.load_info(trained[0])
    assert made.config.encoder.norm == "batch"
    assert made.config.encoder.streaming_chunk_size == whole.config.encoder.streaming_chunk_size
    assert made.units == whole.units


@pytest.mark.usefixtures("uncalibrated")
def test_a_stopped_run_goes_on(trained: tuple[Path, Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kouling.compress.lessons.finish", stop)
        with pytest.raises(KeyboardInterrupt):
            carried_out(trained, tmp_path, PRUNED, "int8", monkeypatch)
    trained_at = next(tmp_path.glob("work/*/tuned/log.csv")).stat().st_mtime_ns
    assert carried_out(trained, tmp_path, PRUNED, "int8", monkeypatch)["stages"]
    assert next(tmp_path.glob("work/*/tuned/log.csv")).stat().st_mtime_ns == trained_at


def test_another_models_recipe_is_refused(model: Path, trained: tuple[Path, Data], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its words are not those of the recipe tiny; allowed: its own recipe"):
        Compression(model, Budget(10**6), tmp_path / "out", trained[1], 1, 0)
