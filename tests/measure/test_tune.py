"""A study runs every setting as a model of its own, which is the model that training with that window would see."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import audio, checkpoint, cli, commands, recognizer
from kouling.checkpoint import ModelInfo
from kouling.config import PRESETS
from kouling.deploy import model_file
from kouling.deploy.engine import Engine
from kouling.measure import accuracy, tune, tune_page
from kouling.measure import tune as tune_module  # where the fixture has its name
from kouling.measure.footprint import macs_per_s
from kouling.measure.grid import Setting, adapt, grid, own_setting
from kouling.measure.intervals import wilson
from kouling.measure.words import speaker
from kouling.recognizer import Recognizer

pytest.importorskip("kouling._engine", reason="the engine was not built", exc_type=ImportError)

Samples = NDArray[np.int16]
OWN = Setting(12, 40, 8)  # of the tiny model: subsampling 4, lookahead 4


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> tuple[ModelInfo, dict[str, NDArray[Any]]]:
    return checkpoint.load(tiny_model / "model.safetensors")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, voice: Callable[[int, int], Samples]) -> Path:
    """go, stop and other words: 4 clips of each, and one file that is no recording."""
    folder = tmp_path_factory.mktemp("clips")
    for number, label in enumerate(("go", "stop", "other")):
        (folder / label).mkdir()
        for take in range(4):
            audio.write(folder / label / f"{take}.wav", voice(12000, 10 * number + take))
    (folder / "stop" / "bad.wav").write_bytes(b"no recording")
    return folder


@pytest.fixture
def tuned(tiny_model: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """tuned(*more): what `kouling tune` gives for the tiny model: status, stdout, stderr."""

    def run(*more: str, data: Path = clips, model: Path = tiny_model) -> tuple[int, str, str]:
        try:
            status = cli.main(["tune", "--model", str(model), "--data", str(data), *more])
        except SystemExit as error:  # argparse
            status = int(error.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


GRID = ("--chunk", "8,12", "--cached", "20,40", "--step", "4,8")


# The grid, and what needs training


@pytest.mark.parametrize("preset", ["base", "small"])
def test_the_usual_grid_has_the_settings_of_the_original_and_the_models_own(preset: str) -> None:
    own = PRESETS[preset].encoder
    settings = grid(own)
    assert {Setting(10, 100, 5), Setting(5, 50, 3), own_setting(own)} <= set(settings)
    assert len(settings) == len(set(settings))
    delays = {
        (each.chunk - each.step, each.step)
        for each in settings
        if each.step % own.subsampling == 0 and 0 <= each.chunk - each.step <= own.lookahead
    }
    steps = (own.subsampling, 2 * own.subsampling)
    assert delays >= {(ahead, step) for ahead in (0, own.lookahead) for step in steps}
    assert grid(own, [10], [50], [5, 5]) == [Setting(10, 50, 5)]
    assert [each.threshold for each in grid(own, [10], [100], [5], [0.3, 0.6])] == [0.3, 0.6]


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        (Setting(4, 40, 8), "chunk 4 is smaller than step 8"),
        (Setting(12, 40, 6), "step 6 is not a multiple of the model's subsampling, 4"),
        (Setting(16, 40, 8), "lookahead 8 (chunk - step): trained with 4; needs training"),
        (Setting(12, 44, 8), "cached 44: trained with 40; needs training"),
        (Setting(12, 3, 8), "encoder.max_cached_frames 3 is less than one encoder frame; nearest allowed: 4"),
        (Setting(260, 40, 260), "step 260 is longer than the engine's 256"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_reason(tiny: Any, setting: Setting, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        adapt(*tiny, setting)
    assert str(caught.value) == reason


@pytest.mark.parametrize(("shape", "left_context"), [("pruned", 3), ("local", 3), ("linear", 0)])
def test_cached_frames_narrow_every_kind_of_window(
    shape: str, left_context: int, shaped_model: Callable[..., Path]
) -> None:
    pytest.importorskip("torch", reason="the encoder needs torch")
    from kouling.deploy.step import build

    info, weights = checkpoint.load(shaped_model(shape))
    adapted, changed = adapt(info, weights, Setting(12, 12, 8))
    assert adapted.config.encoder.left_context == left_context
    build(adapted, changed)  # refuses weights that do not fit


def test_the_grid_has_only_windows_that_differ() -> None:
    own = PRESETS["base"].encoder
    for kind, cached in (("windowed", {25, 50, 100}), ("local", {25, 100}), ("linear", {100})):
        assert {each.cached for each in grid(replace(own, attention=kind))} == cached


def test_the_own_setting_changes_nothing(tiny: Any) -> None:
    info, weights = adapt(*tiny, OWN)
    every = commands.every_unit(info.units)
    assert model_file.pack(info, weights, every) == model_file.pack(*tiny, every)


@pytest.mark.parametrize("cached", [4, 20, 40])
@pytest.mark.parametrize("lookahead", [0, 1, 3, 4])
def test_a_narrower_window_in_training_is_the_shortened_model_at_run_time(
    tiny: Any, cached: int, lookahead: int
) -> None:
    """To 1e-5, for more frames than the blocks in which training cuts its windows."""
    torch = pytest.importorskip("torch", reason="training needs torch")
    from kouling.deploy.step import build
    from kouling.encoder import TRAINING_BLOCK, Window, WindowedAttention

    whole = build(*tiny)
    for module in whole.modules():
        if isinstance(module, WindowedAttention):
            module.train()
    short = build(*adapt(*tiny, Setting(8 + lookahead, cached, 8)))
    generator = torch.Generator().manual_seed(1)
    later = OWN.chunk - OWN.step - lookahead  # a shorter lookahead names its frames this much later
    heard = 3 * torch.rand((2, 8 * TRAINING_BLOCK, 16), generator=generator)
    expected, _ = short(torch.cat([torch.zeros(2, 8, 16), heard], dim=1), short.initial_state(2))
    begun = torch.cat([torch.zeros(2, 8, 16), heard], dim=1)[:, later:]
    fed = torch.cat([begun, torch.zeros(2, later, 16)], dim=1)
    window = Window(torch.tensor(cached // 4), torch.tensor(lookahead))
    found, _ = whole(fed, whole.initial_state(2), window)
    same = expected.shape[1] - 1  # the last one heard what the other did not
    torch.testing.assert_close(found[:, :same], expected[:, :same], rtol=0, atol=1e-5)
    if (cached, lookahead) != (40, 4):
        plain, _ = whole(fed, whole.initial_state(2))
        assert (plain[:, :same] - expected[:, :same]).abs().max() > 1e-2


@pytest.mark.parametrize("setting", [OWN, Setting(8, 40, 4), Setting(8, 20, 8), Setting(9, 12, 8), Setting(20, 40, 16)])
def test_the_engine_runs_a_variant_as_pytorch_does(
    tiny: Any, setting: Setting, voice: Callable[[int, int], Samples], tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch")
    from kouling.deploy.step import build

    info, weights = adapt(*tiny, setting)
    path = tmp_path / "m.kouling"
    path.write_bytes(model_file.pack(info, weights, commands.every_unit(info.units), "float"))
    heard_by = Engine(path).recognizer()
    samples = voice(48000, 3)
    found = heard_by.log_probs(samples)
    features = heard_by._stream.features(samples)
    features = torch.from_numpy(np.concatenate([features, heard_by.ending(len(features))]))[None]
    encoder = build(info, weights)
    with torch.no_grad():
        silence = torch.zeros(1, round(recognizer.overlay_decoder(info).priming_s * 100), 16)
        state = encoder(silence, encoder.initial_state())[1]
        expected = encoder(features, state)[0][0].numpy()
    assert found.shape == expected.shape and np.abs(found - expected).max() < 0.02


def test_a_longer_step_hears_the_same(tiny: Any, voice: Callable[[int, int], Samples], tmp_path: Path) -> None:
    made = []
    for number, setting in enumerate((Setting(8, 40, 4), OWN, Setting(16, 40, 12))):
        info, weights = adapt(*tiny, setting)
        path = tmp_path / f"{number}.kouling"
        path.write_bytes(model_file.pack(info, weights, commands.every_unit(info.units)))
        made.append(Engine(path).recognizer().log_probs(voice(48000, 3))[:70])
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


def test_multiply_accumulates_are_counted(tiny: Any) -> None:
    """The tiny model by hand: 25 encoder frames a second."""
    info, weights = tiny
    stem = 8 * 4 * 5 * 8 + 4 * 3 * 4 * 4 + 4 * 4 * 16
    block = 4 * 16 * 32 + 4 * 16 * 16 + 2 * 11 * 16 + 3 * 16 * 16 + 5 * 16
    assert macs_per_s(info.config, 5) == 25 * (stem + 2 * block + 16 * 5)
    shorter, _ = adapt(info, weights, Setting(8, 20, 8))
    assert macs_per_s(shorter.config, 5) == 25 * (stem - 8 * 4 * 5 * 4 + 2 * (block - 2 * 5 * 16) + 80)


# Figures


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.3])
def test_the_time_to_command_is_from_the_end_of_the_word(
    fake_runner: Callable[..., Any], tune: Callable[..., Samples], delay_s: float
) -> None:
    """A model that says its word later is heard later by as much, to a step of 80 ms; each portion makes a step."""
    samples = tune("low")
    waits = []
    for late_s in (0.0, delay_s):
        runner = fake_runner(delay_s=late_s, priming_s=0.0)
        wait = tune_module.wait_s(Recognizer(runner), samples, "low", 8)
        assert wait is not None
        waits.append(wait)
        assert set(runner.calls) == {2}
    assert waits[1] - waits[0] == pytest.approx(delay_s, abs=0.081)
    assert 0 < waits[0] < 0.4
    assert tune_module.wait_s(Recognizer(fake_runner()), samples, "high", 8) is None


def outcome(setting: Setting, right: int, total_bytes: int = 100, cached: int = 100) -> tune.Outcome:
    config = replace(PRESETS["base"], encoder=replace(PRESETS["base"].encoder, max_cached_frames=cached))
    made = tune.Outcome(setting, ModelInfo("m", "en", config, ("a", "b")), Path("x"), model_bytes=total_bytes)
    made.evaluation.decided["go"] = Counter({"go": right, "stop": 100 - right})
    return made


def test_the_best_setting_within_a_delay_and_the_front() -> None:
    study = object.__new__(tune.Study)
    fast, slow = outcome(Setting(5, 100, 5), 90), outcome(Setting(10, 100, 5), 95)
    small = outcome(Setting(5, 50, 5), 90, cached=50)
    large, worse = outcome(Setting(10, 99, 5), 95, 200), outcome(Setting(15, 100, 10), 94)
    study.outcomes = [fast, slow, small, large, worse]
    assert study.best(60) is small  # as right as the other, with less work
    assert study.best(100) is slow and study.best(1000) is slow and study.best(40) is None
    assert study.pareto() == [slow, small]
    assert "the least is 50 ms" in tune_page.answer(study, 40, speaker("en"))
    assert tune_page.front_of([(2, 5), (1, 3), (3, 4), (1, 2)]) == [(1, 3), (2, 5)]


def test_intervals_hold_the_share_and_shrink() -> None:
    for share in (0.0, 0.5, 0.93, 1.0):
        low, high = wilson(round(100 * share), 100)
        wide, narrow = high - low, np.diff(wilson(round(1000 * share), 1000))[0]
        assert 0 <= low <= share <= high + 1e-9 <= 1 + 1e-9 and narrow < wide
    assert wilson(50, 100) == pytest.approx((0.404, 0.596), abs=0.001)
    assert wilson(0, 0) == (0, 1)


def test_a_study_decides_as_evaluate_does(tiny_model: Path, clips: Path, tmp_path: Path) -> None:
    settings = [OWN, Setting(8, 20, 8), Setting(8, 40, 4), Setting(99, 40, 4)]
    study = tune.Study(tiny_model, clips, settings, None, quick=False)
    study.run()
    assert [str(each.setting) for each in study.outcomes] == ["12/40/8", "8/20/8", "8/40/4"]
    assert [str(setting) for setting, _ in study.impossible] == ["99/40/4"]
    assert study.done == 12 and len(study.unreadable) == 1 and "bad.wav" in study.unreadable[0]
    good = tmp_path / "good"
    for path in sorted(clips.glob("*/[0-9].wav")):
        (good / path.parent.name).mkdir(parents=True, exist_ok=True)
        (good / path.parent.name / path.name).write_bytes(path.read_bytes())
    for each in study.outcomes:
        expected = accuracy.evaluate(Engine(each.path).recognizer(), good)
        assert each.evaluation.to_dict() == expected.to_dict() and each.evaluation.clips == 12
    assert len(study.outcomes[0].waits_s) <= 8 and study.outcomes[0].stream_bytes > study.outcomes[1].stream_bytes
    result = study.to_dict(60)
    assert json.loads(json.dumps(result)) == result and len(study.measurements()) >= 3 * 4
    study.close()
    assert not study.outcomes[0].path.exists()


def test_clips_are_heard_in_an_order_of_their_own(tiny: Any, clips: Path) -> None:
    found = tune.order(clips, commands.every_unit(tiny[0].units))
    assert len(found) == 13 and len({label for label, _, _ in found[:8]}) == 3
    assert found == tune.order(clips, commands.every_unit(tiny[0].units))


# The command


def test_a_report_and_a_model_are_written(tuned: Callable[..., Any], tmp_path: Path, tiny_model: Path) -> None:
    output, report = tmp_path / "best.kouling", tmp_path / "report"
    status, out, _ = tuned(*GRID, "--json", "--delay", "100ms", "--report", str(report), "-o", str(output))
    assert status == 0
    result = json.loads(out)
    assert {(each["chunk"], each["cached"], each["step"]) for each in result["settings"]} == {
        (chunk, cached, step) for chunk, step in ((8, 4), (8, 8), (12, 8)) for cached in (20, 40)
    }
    document = json.loads((report / "result.json").read_text())
    assert document["result"] == result and document["measurements"]
    page = (report / "index.html").read_text()
    assert "<svg" in page and "12/40/8" in page and "bad.wav" in page
    assert not re.search(r'(src|href)="?http', page)  # nothing from a network
    written = Engine(output).info
    assert own_setting(written.config.encoder) == Setting(**result["best"]) and written.provenance["tuned"]
    assert sorted(path.name for path in report.iterdir()) == ["index.html", "result.json"]


def test_a_checkpoint_is_written_where_the_name_asks_for_one(tuned: Callable[..., Any], tmp_path: Path) -> None:
    output = tmp_path / "best.safetensors"
    assert tuned(*GRID, "--threshold", "0.7", "--delay", "0.08 s", "-o", str(output))[0] == 0
    info, weights = checkpoint.load(output)
    assert info.decoder["threshold"] == 0.7 and info.config.encoder.streaming_chunk_size == 8
    assert weights["stem.patch.weight"].shape[2] == 4 + info.config.encoder.lookahead


def test_a_page_speaks_chinese(tuned: Callable[..., Any], tmp_path: Path) -> None:
    assert tuned(*GRID, "--quick", "--lang", "zh", "--report", str(tmp_path))[0] == 0
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "延迟" in text and "前沿" in text and "Delay" not in text


def test_ctrl_c_leaves_what_was_finished(
    tuned: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    decide = accuracy.decide

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 6 * 5:  # six settings, five clips
            raise KeyboardInterrupt
        return decide(*arguments)

    monkeypatch.setattr(tune, "decide", interrupted)
    report = ("--report", str(tmp_path / "report"), "-o", str(tmp_path / "m.kouling"), "--delay", "100ms", "--json")
    status, out, err = tuned(*GRID, *report)
    assert status == 130 and "stopped after 5 of" in err and len(err.splitlines()) == 1
    assert json.loads(out)["clips"] == 5 and (tmp_path / "report" / "index.html").exists()
    assert not (tmp_path / "m.kouling").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--delay", "6 bananas"), "'6 bananas'; allowed: a time, as in 60ms or 0.06s"),
        (("--chunk", "ten"), "'ten'; allowed: whole numbers above 0"),
        (("--cached", "50,0"), "'50,0'; allowed: whole numbers above 0"),
        (("--threshold", "2"), "'2'; allowed: numbers above 0, at most 1"),
        (("--lang", "fr"), "--lang fr; allowed: en, zh"),
        (("--delay", "20ms"), "no setting that can be run has a delay of at most 20 ms; the least is"),
        (("--commands", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_a_wrong_option_is_one_line(tuned: Callable[..., Any], arguments: tuple[str, ...], complaint: str) -> None:
    status, out, err = tuned(*arguments)
    assert status == 2 and out == "" and complaint in err and len(err.splitlines()) == 1


def test_settings_that_cannot_be_run_at_all_are_one_line(tuned: Callable[..., Any], tiny: Any) -> None:
    with pytest.raises(ValueError, match="chunk 4 is smaller than step 8"):
        adapt(*tiny, Setting(4, 40, 8))
    status, _, err = tuned("--chunk", "4", "--step", "8")
    assert status == 2 and "chunk 4 is smaller than step 8" in err and len(err.splitlines()) == 1


def test_data_that_is_no_use_is_one_line(tuned: Callable[..., Any], clips: Path, tmp_path: Path) -> None:
    for name, labels, complaint in (
        ("none", (), "holds no <label>/<recording>"),
        ("one", ("go",), "only clips of 'go'"),
        (
            "strange",
            ("other", "thing"),
            "no folder is named after a command; found other, thing; commands: go, stop, left",
        ),
    ):
        (tmp_path / name).mkdir()
        for label in labels:
            (tmp_path / name / label).mkdir()
            (tmp_path / name / label / "0.wav").write_bytes((clips / "go" / "0.wav").read_bytes())
        status, _, err = tuned(data=tmp_path / name)
        assert status == 2 and complaint in err and len(err.splitlines()) == 1
    status, _, err = tuned(data=tmp_path / "nowhere")
    assert status == 2 and "no such folder or tar" in err


def test_an_unwritable_place_is_told_before_the_work(
    tuned: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune.Study, "run", lambda *arguments: pytest.fail("work was begun"))
    (tmp_path / "file").write_text("")
    for option in (("--report", str(tmp_path / "file" / "report")), ("-o", str(tmp_path / "file" / "m.kouling"))):
        status, _, err = tuned(*GRID, *option, "--delay", "100ms")
        assert status == 2 and "cannot be written" in err and len(err.splitlines()) == 1


def test_a_model_without_its_checkpoint_is_refused(tuned: Callable[..., Any], tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "step.onnx").write_bytes((tiny_model / "step.onnx").read_bytes())
    status, _, err = tuned(model=tmp_path / "step.onnx")
    assert status == 2 and "needs the checkpoint" in err and len(err.splitlines()) == 1
