"""Recordings become a cache, the cache becomes scenes; what is random is drawn first, then applied purely."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="scenes are for training, which needs torch")

import torch  # noqa: E402

from kouling import audio  # noqa: E402
from kouling.commands import BLANK, UNKNOWN  # noqa: E402
from kouling.config import FeatureConfig  # noqa: E402
from kouling.features import LogMel  # noqa: E402
from kouling.train import augment, download, speak  # noqa: E402
from kouling.train.augment import ClipDraw, NoiseDraw, SceneDraw  # noqa: E402
from kouling.train.data import Clip, Corpus, cut_pieces, load  # noqa: E402
from kouling.train.recipe import Augment, Scenes, Source  # noqa: E402
from kouling.train.scenes import SceneMaker, Slot, draw_evenly  # noqa: E402
from kouling.train.sounds import calls  # noqa: E402

MakeRecipe = Callable[..., Any]
UNITS = (BLANK, UNKNOWN, "rise", "fall", "hum")
CLIP = Clip(0, 16000, 5000, 11000, 1000.0, "go", "go/1.wav")
NO_ROOMS = np.zeros((0, 1), np.float32)


def loudness(samples: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def refusal(work: Callable[[], Any]) -> str:
    """The message that `work` ends in, after checking that it is one line."""
    with pytest.raises(ValueError) as caught:
        work()
    message = str(caught.value)
    assert message and len(message.splitlines()) == 1
    return message


# Augmentation: clips


@pytest.mark.parametrize("seed", range(20))
def test_a_drawn_clip_holds_its_speech(seed: int) -> None:
    rng = np.random.default_rng(seed)
    draw = augment.draw_clip(rng, CLIP, 9600, Augment())
    margin = 16000 // 20
    assert draw.offset <= CLIP.speech_start - margin
    assert draw.offset + 9600 * draw.speed >= CLIP.speech_end + margin - 1


def test_speech_that_does_not_fit_is_heard_from_its_middle() -> None:
    draw = augment.draw_clip(np.random.default_rng(0), CLIP, 4000, Augment(speed_percent=0.0))
    assert draw.offset in (6000, 6001)


def test_drawing_a_clip_keeps_to_its_ranges_and_uses_them() -> None:
    rng = np.random.default_rng(0)
    settings = Augment(speed_percent=10.0, clip_gain_db=4.0, room_percent=30.0)
    draws = [augment.draw_clip(rng, CLIP, 12000, settings) for _ in range(400)]
    speeds, gains_db = [draw.speed for draw in draws], [draw.gain_db for draw in draws]
    assert 0.9 <= min(speeds) < 0.92 and 1.08 < max(speeds) <= 1.1
    assert -4 <= min(gains_db) < -3.5 and 3.5 < max(gains_db) <= 4
    rooms = [draw.room for draw in draws if draw.room is not None]
    assert 0.2 < len(rooms) / len(draws) < 0.4
    assert min(rooms) >= 0 and augment.NUM_ROOMS * 0.8 < max(rooms) < augment.NUM_ROOMS
    assert len({draw.offset for draw in draws}) > 100


def test_drawing_is_deterministic() -> None:
    def draws(seed: int) -> list[Any]:
        rng = np.random.default_rng(seed)
        return [[augment.draw_clip(rng, CLIP, 12000, Augment()), augment.draw_scene(rng, Augment())] for _ in range(5)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_an_untouched_clip_is_itself() -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 3000).astype(np.int16)
    np.testing.assert_array_equal(augment.apply_clip(samples, 3000, ClipDraw(0, 1.0, 0.0, None), NO_ROOMS), samples)


def test_a_clip_is_silent_before_and_after() -> None:
    samples = np.random.default_rng(0).integers(100, 200, 500).astype(np.int16)
    heard = augment.apply_clip(samples, 2000, ClipDraw(-700, 1.0, 0.0, None), NO_ROOMS)
    np.testing.assert_array_equal(heard, np.concatenate([np.zeros(700), samples, np.zeros(800)]))


def test_speed_gain_and_room_do_what_they_say() -> None:
    ramp = np.arange(4000, dtype=np.int16)
    faster = augment.apply_clip(ramp, 1000, ClipDraw(10, 1.25, 0.0, None), NO_ROOMS)
    np.testing.assert_allclose(faster, 10 + 1.25 * np.arange(1000), rtol=1e-6)
    louder = augment.apply_clip(ramp, 1000, ClipDraw(10, 1.25, 20.0, None), NO_ROOMS)
    np.testing.assert_allclose(louder, 10 * faster, rtol=1e-6)
    rooms = np.zeros((2, 50), np.float32)
    rooms[1, [0, 40]] = 0.5, 0.25  # half of it now, a quarter 40 samples later
    echoed = augment.apply_clip(ramp, 1000, ClipDraw(0, 1.0, 0.0, 1), rooms)
    late = np.concatenate([np.zeros(40), np.arange(960)])
    np.testing.assert_allclose(echoed, 0.5 * np.arange(1000) + 0.25 * late, rtol=0, atol=1e-2)


def test_applying_is_pure() -> None:
    rng = np.random.default_rng(0)
    samples = rng.integers(-3000, 3000, 12000).astype(np.int16)
    rooms = rng.standard_normal((3, 100)).astype(np.float32)
    clip_draw = ClipDraw(-100, 1.1, 3.0, 2)
    scene_draw = SceneDraw(20.0, NoiseDraw(None, 3.0, -20.0, 5))
    noise = rng.standard_normal(12000).astype(np.float32)
    given = (samples.copy(), rooms.copy(), noise.copy())

    def scene() -> NDArray[Any]:
        clean = augment.apply_clip(samples, 12000, clip_draw, rooms)
        kept = clean.copy()
        applied = augment.apply_scene(clean, noise, 900.0, scene_draw, Augment())
        np.testing.assert_array_equal(clean, kept)
        return np.stack([clean, applied])

    np.testing.assert_array_equal(scene(), scene())
    for before, after in zip(given, (samples, rooms, noise), strict=True):
        np.testing.assert_array_equal(before, after)


def test_another_vocal_tract_has_its_tones_elsewhere() -> None:
    config = FeatureConfig()
    time_s = np.arange(16000) / 16000

    def bands(hz: float) -> NDArray[np.float32]:
        samples = np.rint(8000 * np.sin(2 * np.pi * hz * time_s)).astype(np.int16)
        return LogMel(config).accept(samples)

    heard = torch.from_numpy(np.repeat(bands(1000.0)[None], 200, axis=0))
    warped = augment.warp_features(heard, np.random.default_rng(0), Augment(warp_percent=10.0), config).numpy()
    assert warped.shape == heard.shape and warped.dtype == np.float32
    peaks = warped[:, 50].argmax(axis=1)
    lowest, highest = bands(900.0)[50].argmax(), bands(1100.0)[50].argmax()
    assert abs(int(peaks.min()) - lowest) <= 1 and abs(int(peaks.max()) - highest) <= 1
    np.testing.assert_array_equal(warped.argmax(axis=2)[:, 10], peaks)  # a row keeps its voice
    assert augment.warp_features(heard, np.random.default_rng(0), Augment(warp_percent=0.0), config) is heard
    np.testing.assert_array_equal(heard[0], bands(1000.0))


def test_another_microphone_changes_the_tone_and_not_the_silence() -> None:
    config = FeatureConfig()
    heard = torch.full((300, 20, 64), 1.5)
    heard[:, :5] = 0
    filtered = augment.filter_features(heard, np.random.default_rng(0), Augment(filter_db=6.0), config).numpy()
    assert filtered.dtype == np.float32 and not filtered[:, :5].any()
    np.testing.assert_array_equal(filtered[:, 5:], np.repeat(filtered[:, 5:6], 15, axis=1))  # one line a row
    change_db = (filtered[:, 5] - 1.5) * config.log_scale * 10 / np.log(10)
    assert -6 <= change_db.min() < -5.5 and 5.5 < change_db.max() <= 6
    assert np.abs(np.diff(change_db, axis=1)).max() < 12 / (64 / augment.FILTER_KNOTS)  # smooth
    assert change_db.std(axis=0).min() > 2  # at every frequency
    assert augment.filter_features(heard, np.random.default_rng(0), Augment(), config) is heard
    quiet = augment.filter_features(heard * 0 + 0.01, np.random.default_rng(0), Augment(filter_db=6.0), config)
    assert quiet.min() == 0


@pytest.mark.parametrize("snr_db", [0.0, 12.0])
def test_noise_added_to_features_is_that_added_to_samples(snr_db: float) -> None:
    config = FeatureConfig()
    rng = np.random.default_rng(0)
    speech = np.concatenate([np.zeros(8000), 3000 * rng.standard_normal(16000)])
    noise = 500 * rng.standard_normal(24000)

    def features(samples: NDArray[np.float64]) -> NDArray[np.float32]:
        return LogMel(config).accept(np.rint(samples).clip(-32768, 32767).astype(np.int16))[:144]

    heard = (np.arange(144) >= 50)[None]  # the silence before does not count
    settings = Augment(more_noise_percent=100.0, more_noise_low_db=snr_db, snr_high_db=snr_db)
    clean, said, alone = map(torch.from_numpy, (features(speech)[None], heard, features(noise)[None]))
    noisy = augment.add_noise_features(clean, said, alone, np.random.default_rng(1), settings, config).numpy()
    expected = features(speech + noise * (6 * 10 ** (-snr_db / 20)))
    assert noisy.dtype == np.float32 and noisy.shape == clean.shape
    for part in (slice(0, 45), slice(55, 144)):
        difference = noisy[0, part].mean(axis=0) - expected[part].mean(axis=0)
        assert abs(difference.mean()) < 0.03 and abs(difference).max() < 0.15  # 0.03 is 0.65 dB


def test_noise_is_added_to_as_many_scenes_as_wanted_and_to_no_silence() -> None:
    config, rng = FeatureConfig(), np.random.default_rng(0)
    scenes = torch.from_numpy(rng.uniform(1, 3, (400, 20, 64)).astype(np.float32))
    scenes[:, :5] = 0
    noise = torch.from_numpy(rng.uniform(1, 3, scenes.shape).astype(np.float32))
    heard = torch.ones(400, 20, dtype=torch.bool)

    def noisy(noise: torch.Tensor, percent: float) -> torch.Tensor:
        settings = Augment(more_noise_percent=percent)
        return augment.add_noise_features(scenes, heard, noise, np.random.default_rng(3), settings, config)

    assert noisy(noise, 0.0) is scenes
    changed = (noisy(noise, 30.0) != scenes).any(dim=2).any(dim=1)
    assert 0.2 < changed.float().mean() < 0.4
    louder = noisy(noise, 100.0)
    assert louder.isfinite().all() and (louder >= scenes - 1e-4).all()
    torch.testing.assert_close(noisy(torch.zeros_like(noise), 100.0), scenes, rtol=0, atol=1e-4)
    assert (scenes[:, :5] == 0).all()  # what is given stays as it is


# Augmentation: scenes


def tone(rms: float, length: int = 16000) -> NDArray[np.float32]:
    made: NDArray[np.float64] = rms * np.sqrt(2) * np.sin(2 * np.pi * 440 * np.arange(length) / 16000)
    return made.astype(np.float32)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 12.5, 40.0])
@pytest.mark.parametrize("gain_db", [-6.0, 0.0, 10.0])
def test_the_snr_of_a_scene_is_what_was_drawn(snr_db: float, gain_db: float) -> None:
    clean, noise = tone(1000.0), tone(1.0)[::-1].copy()
    draw = SceneDraw(gain_db, NoiseDraw(None, snr_db, -10.0, 0))
    gain = 10 ** (gain_db / 20)
    scene = augment.apply_scene(clean, noise, loudness(clean), draw, Augment())
    added = scene / gain - clean
    assert 20 * np.log10(loudness(clean) / loudness(added)) == pytest.approx(snr_db, abs=0.2)


@pytest.mark.parametrize("level_db", [-40.0, -10.0])
def test_noise_alone_has_the_level_that_was_drawn(level_db: float) -> None:
    draw = SceneDraw(0.0, NoiseDraw(None, 99.0, level_db, 0))
    scene = augment.apply_scene(np.zeros(16000, np.float32), tone(1.0), 0.0, draw, Augment())
    assert 20 * np.log10(loudness(scene) / 32767) == pytest.approx(level_db, abs=0.2)


def test_a_scene_is_rounded_and_clipped_to_16_bits() -> None:
    scene = augment.apply_scene(tone(15000.0), None, 15000.0, SceneDraw(12.0, None), Augment(overdrive_db=14.0))
    assert (scene.max(), scene.min()) == (32767, -32768)
    assert np.mean(scene == 32767) > 0.2
    np.testing.assert_array_equal(scene, np.round(scene))
    quiet = augment.apply_scene(tone(15000.0), None, 15000.0, SceneDraw(-70.0, None), Augment())
    assert set(np.unique(np.abs(quiet))) <= set(range(8))


@pytest.mark.parametrize("overdrive_db", [0.0, 6.0])
def test_a_scene_is_driven_no_further_above_full_scale_than_allowed(overdrive_db: float) -> None:
    clean = tone(100.0)
    clean[8000:] = 0
    clean[12000] = 10000.0
    clean[14000] = 100.0
    scene = augment.apply_scene(clean, None, 100.0, SceneDraw(60.0, None), Augment(overdrive_db=overdrive_db))
    gain_db = 20 * np.log10(scene[14000] / clean[14000])
    assert gain_db == pytest.approx(20 * np.log10(32767 / 10000) + overdrive_db, abs=0.05)
    assert 32760 <= scene[12000] == scene.max() <= 32767


def test_drawing_a_scene_keeps_to_its_ranges_and_uses_them() -> None:
    rng = np.random.default_rng(0)
    settings = Augment(gain_db=10.0, noise_percent=60.0, snr_low_db=5.0, snr_high_db=15.0)
    draws = [augment.draw_scene(rng, settings) for _ in range(400)]
    assert -10 <= min(d.gain_db for d in draws) < -9 and 9 < max(d.gain_db for d in draws) <= 10
    noises = [draw.noise for draw in draws if draw.noise is not None]
    assert 0.5 < len(noises) / len(draws) < 0.7
    snrs_db = [noise.snr_db for noise in noises]
    assert 5 <= min(snrs_db) < 5.5 and 14.5 < max(snrs_db) <= 15
    assert {noise.color for noise in noises} == {None, 0.0, 1.0, 2.0}
    assert all(augment.draw_scene(rng, settings, always_noise=True).noise for _ in range(20))
    assert not any(augment.draw_scene(rng, replace(settings, noise_percent=0.0)).noise for _ in range(20))


def test_recorded_noise_is_heard_where_it_is_loud() -> None:
    """One bark in five seconds: every scene with this noise has some of it."""
    samples = np.zeros(80000, dtype=np.int16)
    samples[50000:53000] = 1000
    clip = Clip(0, 80000, 50000, 53000, 1000.0, "dog", "bark")
    for seed in range(50):
        varied = augment.vary_noise(samples, clip, 16000, NoiseDraw(None, 0.0, 0.0, seed, speed=1 + seed / 50))
        assert 14000 < len(varied) <= 32000 and (varied == 1000).sum() >= 1500 / (1 + seed / 50)


def test_made_up_sounds_are_many_and_of_even_level() -> None:
    heard = [calls(16000, seed) for seed in range(60)]
    for sound in heard:
        assert sound.shape == (16000,) and np.isfinite(sound).all() and loudness(sound) == pytest.approx(1, abs=1e-3)
    np.testing.assert_array_equal(calls(16000, 3), heard[3])
    peaks = [np.abs(np.fft.rfft(sound)).argmax() for sound in heard]  # Hz
    assert len(set(peaks)) > 50 and min(peaks) < 300 and max(peaks) > 3000
    crests = [np.abs(sound).max() for sound in heard]
    assert min(crests) < 6 and max(crests) > 15  # from steady to a knock


def masked(shape: tuple[int, ...], settings: Augment) -> NDArray[np.float32]:
    heard: NDArray[np.float32] = augment.mask_features(torch.ones(shape), np.random.default_rng(0), settings).numpy()
    return heard


def test_masks_silence_what_they_cover_and_nothing_else() -> None:
    settings = Augment(time_masks_per_s=2.5, time_mask_s=0.12, mel_masks=1, mel_mask_bands=5)  # one in 0.4 s
    features = masked((50, 40, 16), settings)
    silent_frames, silent_bands = (features == 0).all(axis=2), (features == 0).all(axis=1)
    np.testing.assert_array_equal(features, 1 - (silent_frames[:, :, None] | silent_bands[:, None]))
    for silent, most in ((silent_frames, 12), (silent_bands, 5)):
        widths = silent.sum(axis=1)
        assert widths.min() == 0 and widths.max() == most
        assert (
            np.abs(np.diff(np.pad(silent, ((0, 0), (1, 1))).astype(int), axis=1)).sum(axis=1) <= 2
        ).all()  # in one piece
    np.testing.assert_array_equal(masked((50, 40, 16), settings), features)


def test_masks_wider_than_the_scene_cover_no_more_than_it() -> None:
    features = masked((60, 10, 8), Augment(time_masks_per_s=10, time_mask_s=0.3, mel_masks=1, mel_mask_bands=10))
    assert 0 < features.mean() < 0.5


def test_a_longer_scene_has_more_time_masks() -> None:
    features = masked((200, 500, 4), Augment(time_masks_per_s=1.0, time_mask_s=0.1, mel_masks=0))
    silent = np.pad((features == 0).all(axis=2), ((0, 0), (1, 1)))
    pieces = (np.diff(silent.astype(int), axis=1) == 1).sum(axis=1)
    assert pieces.max() == 5 and pieces.mean() > 3.5


# Rooms


def test_a_simulated_room_has_energy_1_and_the_direct_sound_first() -> None:
    tails = []
    for seed in range(4):
        room = augment.simulate_room(np.random.default_rng(seed))
        assert room.shape == (6400,) and room.dtype == np.float32
        assert np.sum(room.astype(np.float64) ** 2) == pytest.approx(1.0, abs=1e-5)
        assert np.argmax(np.abs(room)) <= 8
        np.testing.assert_array_equal(room, augment.simulate_room(np.random.default_rng(seed)))
        tails.append(float(np.sum(room[160:] ** 2)))
    assert max(tails) > 0.1 and len(set(tails)) == 4  # they do reverberate, each in its way


def test_rooms_are_simulated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "NUM_ROOMS", 2)
    rooms = augment.load_rooms(tmp_path / "new")
    assert rooms.shape == (2, 6400) and not np.array_equal(*rooms)
    assert len(os.listdir(tmp_path / "new")) == 1
    monkeypatch.setattr(augment, "simulate_room", None)
    np.testing.assert_array_equal(augment.load_rooms(tmp_path / "new"), rooms)


# The cache of recordings


def tar(path: Path, folder: Path, names: list[str] | None = None) -> Path:
    """The folder as a tar, under a name inside; its members in the reverse of the alphabet."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for file in sorted(folder.glob("*/*"), reverse=True):
            if names is None or file.parent.name in names:
                archive.add(file, f"top/{file.parent.name}/{file.name}")
    return path


def heard(corpus: Corpus) -> dict[str, tuple[Any, ...]]:
    """Everything about each clip but its place in the cache."""
    return {c.name: (*replace(c, start=0).__dict__.values(), corpus.of(c).tobytes()) for c in corpus.clips}


def test_a_folder_and_a_tar_of_it_make_the_same_clips(data: Path, tmp_path: Path) -> None:
    """Without the recordings of noise that Speech Commands keeps beside its words."""
    folder = shutil.copytree(data / "words", tmp_path / "words")
    (folder / "_background_noise_").mkdir()
    shutil.copy(folder / "hum" / "00.wav", folder / "_background_noise_" / "mill.wav")
    tar(tmp_path / "words.tar", folder)
    of_folder = heard(load(Source("words"), [tmp_path], tmp_path / "cache", progress=False))
    of_tar = heard(load(Source("words.tar"), [tmp_path], tmp_path / "cache", progress=False))
    assert len(of_folder) == 80
    assert of_folder == of_tar


def test_the_cache_holds_the_samples_of_the_recordings(data: Path, cache: Path) -> None:
    corpus = load(Source("words"), [data], cache, progress=False)
    assert len(corpus.samples) == sum(clip.length for clip in corpus.clips)
    for clip in corpus.clips[::7]:
        assert clip.name.split("/")[0] == clip.label
        np.testing.assert_array_equal(corpus.of(clip), audio.read(data / "words" / clip.name))


def test_a_second_run_decodes_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = heard(load(Source("noise"), [data], tmp_path, progress=False))
    files = sorted(os.listdir(tmp_path))
    monkeypatch.setattr(audio, "read", None)
    assert heard(load(Source("noise"), [data], tmp_path, progress=False)) == first
    assert sorted(os.listdir(tmp_path)) == files and len(files) == 2


def test_changed_recordings_are_decoded_anew(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data / "noise", tmp_path / "noise")
    before = heard(load(Source("noise"), [tmp_path], tmp_path / "cache", progress=False))
    audio.write(folder / "hiss" / "new.wav", np.ones(4000, np.int16))
    after = heard(load(Source("noise"), [tmp_path], tmp_path / "cache", progress=False))
    assert after.keys() - before.keys() == {"hiss/new.wav"}


@pytest.mark.parametrize(("one", "other"), [("words.v1.tar", "words.v2.tar"), ("words.tar.gz", "words.tar.gz")])
def test_bodies_whose_names_begin_alike_have_their_own_caches(one: str, other: str, data: Path, tmp_path: Path) -> None:
    for name, labels in ((one, ["rise"]), (other, ["fall", "hum"])):
        tar(tmp_path / name, data / "words", labels)
        corpus = load(Source(name), [tmp_path], tmp_path / "cache", progress=False)
        assert sorted({clip.label for clip in corpus.clips}) == labels


def test_an_interrupted_decoding_leaves_no_cache(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        # Not by the module's name: other tests import it anew, without torch.
        patch.setitem(load.__globals__, "describe", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load(Source("noise"), [data], tmp_path, progress=False)
    assert os.listdir(tmp_path) == []
    assert len(load(Source("noise"), [data], tmp_path, progress=False).clips) == 3


def test_missing_data_names_the_places_looked_in(tmp_path: Path) -> None:
    folders = [tmp_path / "here", tmp_path / "there"]
    message = refusal(lambda: load(Source("words.tar"), folders, tmp_path, progress=False))
    assert "'words.tar'" in message and all(str(folder / "words.tar") in message for folder in folders)
    absolute = refusal(lambda: load(Source(str(tmp_path / "gone.tar")), folders, tmp_path, progress=False))
    assert str(tmp_path / "gone.tar") in absolute and "here" not in absolute


def test_missing_data_is_downloaded_into_the_first_place(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its recipe says how; what is there is not fetched."""
    fetched = []

    def fetch(name: str, folder: Path) -> Path:
        fetched.append((name, folder))
        return data / "noise"

    monkeypatch.setattr(download, "fetch", fetch)
    folders = [tmp_path / "first", data]
    assert len(load(Source("absent", download="archive"), folders, tmp_path / "c", progress=False).clips) == 3
    assert fetched == [("archive", tmp_path / "first")]
    load(Source("noise", download="archive"), folders, tmp_path / "c", progress=False)
    refusal(lambda: load(Source("absent"), folders, tmp_path / "c", progress=False))
    assert len(fetched) == 1


def test_the_first_place_that_has_the_data_is_taken(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "noise" / "hiss", tmp_path / "noise" / "mill")
    for folders, label in (([data, tmp_path], "hiss"), ([tmp_path, data], "mill"), ([tmp_path / "x", data], "hiss")):
        assert load(Source("noise"), folders, tmp_path / "cache", progress=False).clips[0].label == label


@pytest.mark.parametrize("kind", ["empty-folder", "no-tar", "cut-tar", "cut-gz", "no-audio"])
def test_data_that_cannot_be_used_is_refused(kind: str, data: Path, tmp_path: Path) -> None:
    path = tmp_path / f"it{'.tar' if 'tar' in kind else '.tar.gz' if 'gz' in kind else ''}"
    if "cut" in kind:
        whole = tar(path, data / "noise").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif "tar" in kind:
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    else:
        (path / "label").mkdir(parents=True)
    if kind == "no-audio":
        (path / "label" / "1.wav").write_text("no sound")
    message = refusal(lambda: load(Source(path.name), [tmp_path], tmp_path / "cache", progress=False))
    assert "label/1.wav" in message if kind == "no-audio" else str(path) in message
    assert not (tmp_path / "cache").exists() or os.listdir(tmp_path / "cache") == []


def test_labels_are_renamed_and_left_out(data: Path, cache: Path) -> None:
    source = Source("words", rename={"rise": "up"}, exclude=["hum"])
    corpus = load(source, [data], cache, progress=False)
    assert {clip.label for clip in corpus.clips} == {"up", "fall", "other"}
    assert {clip.label for clip in load(Source("words"), [data], cache, progress=False).clips} == {
        "rise",
        "fall",
        "hum",
        "other",
    }


def test_recordings_are_cut_where_a_file_says(data: Path, cache: Path, tmp_path: Path) -> None:
    whole = load(Source(path="words"), [data], cache).clips[3]
    cuts = tmp_path / "cuts.tsv"
    cuts.write_text(f"# name, from, to, words\n{whole.name}\t0.10\t0.25\tgo now\nother\t0\t1\tgo\n", encoding="utf-8")
    corpus = load(Source(path="words", cuts=str(cuts)), [data], cache)
    (clip,) = corpus.clips  # of what the source does not hold, nothing
    assert (clip.start - whole.start, clip.length, clip.label) == (1600, 2400, "go now")
    parts = [corpus.part(Source(path="words", part="both", valid_percent=p), "valid") for p in (0, 100)]
    assert parts == [[], [clip]]
    cuts.write_text("# comment\nname\t0.1\tgo\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 2: .*needed: a recording, two times in seconds and words"):
        load(Source(path="words", cuts=str(cuts)), [data], cache)


def test_each_clip_is_for_training_or_for_validation(data: Path, cache: Path) -> None:
    source = Source("words", part="both", valid_percent=30)
    corpus = load(source, [data], cache, progress=False)
    train, valid = corpus.part(source, "train"), corpus.part(source, "valid")
    assert {c.name for c in train}.isdisjoint(c.name for c in valid)
    assert len(train) + len(valid) == 80 and 12 <= len(valid) <= 36
    turned = Corpus(corpus.samples, corpus.clips[::-1])
    assert {c.name for c in turned.part(source, "valid")} == {c.name for c in valid}  # by name, not by place
    for part in ("train", "valid"):
        whole = replace(source, part=part)
        assert [len(corpus.part(whole, p)) for p in ("train", "valid")] == ([80, 0] if part == "train" else [0, 80])


def test_the_split_that_comes_with_the_recordings_is_kept(data: Path, tmp_path: Path) -> None:
    """What is listed for testing is for neither."""
    folder = shutil.copytree(data / "noise", tmp_path / "noise")
    (folder / "validation_list.txt").write_text("hiss/1.wav\n")
    (folder / "testing_list.txt").write_text("hiss/2.wav\n")
    for part, expected in (("train", ["hiss/0.wav"]), ("valid", ["hiss/1.wav"])):
        source = Source("noise", part=part)
        corpus = load(source, [tmp_path], tmp_path / "cache", progress=False)
        assert [clip.name for clip in corpus.part(source, part)] == expected
        np.testing.assert_array_equal(corpus.of(corpus.clips[0]), audio.read(folder / expected[0]))


def test_the_speech_of_a_clip_is_found(data: Path, cache: Path) -> None:
    """Each word is 0.35 s long, somewhere in 0.5 s; its ends fade."""
    corpus = load(Source("words"), [data], cache, progress=False)
    for clip in corpus.clips:
        assert 0.2 <= (clip.speech_end - clip.speech_start) / 16000 <= 0.37
        speech = corpus.of(clip)[clip.speech_start : clip.speech_end]
        assert clip.speech_rms == pytest.approx(loudness(speech)) and clip.speech_rms > 1.1 * loudness(corpus.of(clip))


def test_pieces_of_running_speech_lie_between_pauses(data: Path, cache: Path) -> None:
    corpus = load(Source("talk"), [data], cache, progress=False)
    pieces = cut_pieces(corpus, corpus.clips)
    assert len(pieces) >= 6
    for piece in pieces:
        (clip,) = (c for c in corpus.clips if c.name == piece.name.split("@")[0])
        assert clip.start <= piece.start and piece.start + piece.length <= clip.start + clip.length
        assert 0.3 <= piece.length / 16000 <= 0.9
        samples = corpus.of(piece)
        assert loudness(samples[:160]) < 0.1 * loudness(samples) and loudness(samples[-160:]) < 0.1 * loudness(samples)


def test_a_word_list_without_synthesisers_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "words.txt").write_text("hello\n")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(speak, "find_spec", lambda name: None)
    assert "apt-get install" in refusal(lambda: load(Source("words.txt"), [tmp_path], tmp_path / "c", progress=False))


# Scenes


@pytest.fixture(scope="module")
def maker(tiny_recipe: MakeRecipe, data: Path, cache: Path) -> SceneMaker:
    return SceneMaker(tiny_recipe(), UNITS, [data], cache)


def test_every_recording_has_its_place(maker: SceneMaker, data: Path, cache: Path) -> None:
    source = maker.recipe.source[0]
    corpus = load(source, [data], cache, progress=False)
    train = [clip for clip in corpus.part(source, "train")]
    for unit in (2, 3, 4):
        assert {clip.name for _, clip, _ in maker.words[unit]} == {c.name for c in train if c.label == UNITS[unit]}
    assert {clip.name for _, clip, _ in maker.unknown} == {c.name for c in train if c.label == "other"}
    assert len(maker.speech) == 3 and maker.pieces
    valid = {(clip.name, target) for _, clip, target in maker.valid if target}
    expected = {(c.name, UNITS.index(c.label) if c.label in UNITS else 1) for c in corpus.part(source, "valid")}
    assert valid == expected
    assert {clip.label for _, clip, target in maker.valid if target == 0} <= {"hiss"}


def test_an_epoch_says_every_word_about_once(maker: SceneMaker) -> None:
    slots, noise_slots, speech_slots = maker.draw_slots(np.random.default_rng(0))
    mix = maker.recipe.mix
    words = sum(len(clips) for clips in maker.words.values())
    said = [slot.clip.name for slot in slots if slot.target > 1 and slot.clip is not None]
    assert len(said) == pytest.approx(words, rel=0.15)
    assert len(set(said)) > 0.9 * words
    unknown = sum(slot.target == 1 for slot in slots)
    assert unknown == pytest.approx(words * (mix.unknown_percent + mix.pieces_percent) / 100, abs=words * 0.12)
    assert sum(slot.target == 0 for slot in slots) == pytest.approx(words * mix.pause_percent / 100, abs=words * 0.05)
    assert noise_slots == pytest.approx(words * mix.noise_percent / 100, abs=words * 0.05)
    assert speech_slots == pytest.approx(words * mix.speech_percent / 100, abs=words * 0.05)


def test_an_epoch_is_a_pure_function_of_its_seed(maker: SceneMaker) -> None:
    first, again, other = maker.draw_epoch(3), maker.draw_epoch(3), maker.draw_epoch(4)
    for one, two in zip(first, again, strict=True):
        for name, value in one.__dict__.items():
            np.testing.assert_array_equal(value, two.__dict__[name])
    assert not np.array_equal(first[0].features[0], other[0].features[0])


def test_an_epoch_depends_on_the_seed_of_the_recipe(
    maker: SceneMaker, tiny_recipe: MakeRecipe, data: Path, cache: Path
) -> None:
    other = SceneMaker(tiny_recipe(seed=9), UNITS, [data], cache)
    assert not np.array_equal(maker.draw_epoch(0)[0].features[0], other.draw_epoch(0)[0].features[0])


def test_scenes_have_the_shape_and_targets_of_their_recipe(maker: SceneMaker) -> None:
    for batches, shape in zip(maker.draw_epoch(0), maker.recipe.scenes, strict=True):
        rows, frames, mels = batches.features.shape
        assert frames == int(shape.slots * shape.slot_s * 100) // 4 * 4 and mels == 16
        assert np.isfinite(batches.features).all() and batches.features.min() == 0
        assert batches.targets.shape == (rows, shape.slots)
        for said, length, speech in zip(batches.targets, batches.lengths, batches.speech, strict=True):
            assert (said[:length] > 0).all() and not said[length:].any() and said.max() < len(UNITS)
            assert not (speech and length)
        assert 0 < batches.speech.sum() < rows / 3
        noise_alone = (batches.lengths == 0) & ~batches.speech
        assert noise_alone.sum() >= rows * 0.04  # of every length, so that noise is as loud as it likes in each
        assert not batches.speech[: rows - batches.speech.sum()].any()


def test_a_scene_knows_where_something_is_said_and_has_noise_to_be_added(maker: SceneMaker) -> None:
    for batches in maker.draw_epoch(0):
        rows = np.arange(len(batches.lengths))
        heard = batches.heard(rows)
        assert heard.shape == batches.features.shape[:2]
        said = batches.spans.any(axis=(1, 2))
        assert heard[~said].all() and not heard[said].all() and heard[said].any(axis=1).all()
        row = int(np.flatnonzero(said)[0])
        first, last = batches.spans[row, 0]
        assert heard[row, first:last].all() and not heard[row, :first].any()
        drawn = batches.draw_noise(np.random.default_rng(0), 9)
        assert drawn is not None and drawn.shape == (9,)
        assert not batches.lengths[drawn].any() and not batches.speech[drawn].any()
        only_words = replace(batches, lengths=np.ones_like(batches.lengths))
        assert only_words.draw_noise(np.random.default_rng(0), 2) is None


def test_a_scene_says_what_its_targets_say(tiny_recipe: MakeRecipe, data: Path, cache: Path) -> None:
    """Without augmentation a row sounds like its clips, each somewhere in its own slot."""
    plain = {"gain_db": 0.0, "clip_gain_db": 0.0, "speed_percent": 0.0, "noise_percent": 0.0, "room_percent": 0.0}
    maker = SceneMaker(tiny_recipe(augment=plain), UNITS, [data], cache)
    row = [Slot(*maker.words[unit][0][:2], unit) for unit in (4, 2)]
    batches = maker.render(np.random.default_rng(0), [row], 0, Scenes(slots=2, slot_s=0.5))
    assert (batches.targets.tolist(), batches.lengths.tolist()) == ([[4, 2]], [2])
    for slot, features in zip(row, (batches.features[0, :46], batches.features[0, 50:]), strict=True):
        assert slot.corpus is not None and slot.clip is not None
        alone = LogMel(maker.recipe.config.features).accept(slot.corpus.of(slot.clip))
        # The loudest of each band over time does not depend on where in the slot the word is.
        np.testing.assert_allclose(features.max(axis=0), alone.max(axis=0), atol=0.25)
    energy = np.exp(batches.features[0].astype(np.float32) * maker.recipe.config.features.log_scale).mean(axis=1)
    said = np.zeros(len(energy), dtype=bool)
    for first, last in batches.spans[0]:
        said[first:last] = True
    assert 0.3 < said.mean() < 0.9 and energy[~said].mean() < 0.05 * energy[said].mean()


def test_words_backwards_are_unknown_words(tiny_recipe: MakeRecipe, data: Path, cache: Path) -> None:
    plain = {"gain_db": 0.0, "clip_gain_db": 0.0, "noise_percent": 0.0, "room_percent": 0.0, "speed_percent": 0.0}
    maker = SceneMaker(tiny_recipe(augment=plain, mix={"backwards_percent": 50.0}), UNITS, [data], cache)
    slots = [slot for slot in maker.draw_slots(np.random.default_rng(0))[0] if slot.backwards]
    assert len(slots) == pytest.approx(0.5 * sum(len(clips) for clips in maker.words.values()), rel=0.2)
    assert {slot.target for slot in slots} == {1}
    slot = next(slot for slot in slots if slot.clip is not None and slot.clip.label == "rise")
    assert slot.corpus is not None and slot.clip is not None
    length = 2 * slot.clip.length
    heard, (span,) = maker.render_words(np.random.default_rng(1), [slot], length)
    said = slot.corpus.of(slot.clip).astype(np.float32)
    backwards, forwards = (np.correlate(heard, way, "full").max() for way in (said[::-1], said))
    assert backwards > 2 * forwards
    loud = np.flatnonzero(np.abs(heard) > 0.3 * np.abs(heard).max()) / 160
    assert span[0] - 5 <= loud.min() and loud.max() <= span[1] + 5


def test_validation_hears_clips_as_they_are(maker: SceneMaker) -> None:
    features, targets = maker.validation(0.6)
    assert features.shape == (len(maker.valid), 60, 16) and targets.tolist() == [target for *_, target in maker.valid]
    for row, (corpus, clip, _) in list(zip(features, maker.valid, strict=True))[::5]:
        samples = corpus.of(clip)
        if clip.length <= 9600:  # fits: all of it, then silence
            samples = np.concatenate([samples, np.zeros(9600 - clip.length, np.int16)])
            expected = LogMel(maker.recipe.config.features).accept(samples)
            np.testing.assert_allclose(row[: len(expected)], expected, rtol=0, atol=5e-3)  # float16


def test_a_long_validation_clip_is_heard_around_its_speech(maker: SceneMaker) -> None:
    features, _ = maker.validation(0.4)
    for row, (corpus, clip, target) in zip(features, maker.valid, strict=True):
        if target:
            middle = (clip.speech_start + clip.speech_end) // 2
            start = min(max(middle - 3200, 0), clip.length - 6400)
            expected = LogMel(maker.recipe.config.features).accept(corpus.of(clip)[start : start + 6400])
            np.testing.assert_allclose(row[: len(expected)], expected, rtol=0, atol=5e-3)


def test_a_unit_without_recordings_is_refused(tiny_recipe: MakeRecipe, data: Path, cache: Path) -> None:
    message = refusal(lambda: SceneMaker(tiny_recipe(), (*UNITS, "jump", "sit"), [data], cache))
    assert "jump, sit" in message and "rise" not in message


def test_indices_are_drawn_as_often_as_expected() -> None:
    expected = np.array([0.0, 0.25, 1.0, 2.5])
    counts = np.zeros(4)
    rng = np.random.default_rng(0)
    for _ in range(400):
        drawn = np.bincount(draw_evenly(rng, expected), minlength=4)
        assert drawn[0] == 0 and drawn[1] <= 1 and drawn[2] == 1 and drawn[3] in (2, 3)
        counts += drawn
    np.testing.assert_allclose(counts / 400, expected, atol=0.1)
