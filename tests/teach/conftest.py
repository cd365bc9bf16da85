"""A synthesiser, a background and a first encoder that need nothing installed: letters are tones."""

from __future__ import annotations

import gc
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from kouling import checkpoint
from kouling.checkpoint import ModelInfo
from kouling.commands import BLANK, UNKNOWN
from kouling.config import Config, EncoderConfig
from kouling.encoder import Encoder
from kouling.teach import background, lesson, neighbours, phones
from kouling.train import augment, speak

RATE = 16000
LETTER_S = 0.08


def spoken(text: str, pitch_hz: float = 120.0) -> np.ndarray:
    """Each letter as two formants over a pitch."""
    parts = []
    time = np.arange(round(LETTER_S * RATE)) / RATE
    for letter in text:
        place = ord(letter) % 26
        formants = (300 + 35 * place, 900 + 80 * ((place * 7) % 26))
        tones = sum(np.sin(2 * np.pi * f * time) for f in formants) * (1 + np.sin(2 * np.pi * pitch_hz * time))
        parts.append(np.zeros(len(time)) if letter == " " else 2500 * tones)
    silence = np.zeros(RATE // 10)
    return np.concatenate([silence, *parts, silence]).astype(np.int16)


def wav(samples: np.ndarray, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=kind, subtype="PCM_16")
    return file.getvalue()


class Tones:
    install = "nothing"
    weight = 1.0

    def voices(self, language: str) -> list[str]:
        return ["100", "140", "200"]

    def command_line(self, text: str, voice: speak.Voice, output: Path) -> list[str]:
        raise AssertionError("no process is needed")


@pytest.fixture
def tones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """All that teaching needs, made small; the folder has space for what is made."""
    monkeypatch.setitem(speak.BACKENDS, "tones", Tones())

    def say(text: str, voice: speak.Voice, output: Path) -> bytes:
        output.write_bytes(wav(spoken(text.strip("[]"), float(voice.name) + voice.pitch / 5)))
        return output.read_bytes()

    def letters(texts: list[str], accent: str = "") -> list[tuple[str, ...]]:
        return [tuple(letter for letter in text if letter != " ") for text in texts]

    monkeypatch.setattr(speak, "speak", say)
    for module in (phones, neighbours):
        monkeypatch.setattr(module, "pronounce", letters)
    monkeypatch.setattr(neighbours, "sounds_of", lambda phrase: [])
    words = {word: tuple(word) for word in ("lamb", "damp", "light", "stop", "stone", "table", "paper", "cup")}
    monkeypatch.setattr(neighbours, "common_words", lambda language: words)
    for name, value in (("CLIPS", 180), ("FEWEST", 60), ("MOST", 60), ("SENTENCES", 40)):
        monkeypatch.setattr(lesson, name, value)
    quick = replace(
        lesson.TRAINING, batch_s=16.0, learning_rate=5e-3, dropout=0.0, reuse=8, threads=1, frozen_blocks=-1
    )
    monkeypatch.setattr(lesson, "TRAINING", quick)
    calm = replace(lesson.AUGMENT, more_noise_percent=0.0, room_percent=0.0, noise_percent=20.0, snr_low_db=20.0)
    monkeypatch.setattr(lesson, "AUGMENT", calm)
    room = np.zeros((augment.NUM_ROOMS, 8), dtype=np.float32)
    room[:, 0] = 1
    monkeypatch.setattr(augment, "load_rooms", lambda cache: room)  # simulating some takes longer than all the rest
    path = tmp_path / "background.tar"
    rng = np.random.default_rng(0)
    heard = ["# recording, from, to, word"]
    with tarfile.open(path, "w") as pack:
        for number in range(24):
            text = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz "), 50))
            for word in re.finditer(r"[a-z]+", text) if number % 3 else ():
                times = [f"{0.1 + LETTER_S * place:.2f}" for place in word.span()]
                heard.append("\t".join((f"speech/{number}.flac", *times, word.group())))
            sound = spoken(text) if number % 3 else (400 * rng.standard_normal(2 * RATE)).astype(np.int16)
            content = wav(sound, "FLAC")
            member = tarfile.TarInfo(f"{'speech' if number % 3 else 'noise'}/{number}.flac")
            member.size = len(content)
            pack.addfile(member, io.BytesIO(content))
    path.with_name("background-words.tsv").write_text("\n".join(heard) + "\n", encoding="utf-8")
    monkeypatch.setattr(background, "PACK", path)
    encoder = EncoderConfig(
        layers=1, attention_heads=2, hidden_size=32, conv_kernel_size=7, ffn_expansion=1, stem_channels=8,
        streaming_chunk_size=10, max_cached_frames=30,
    )  # fmt: skip
    config = Config(encoder=encoder)
    units = (BLANK, UNKNOWN, "start")
    torch.manual_seed(0)
    weights = {k: v.numpy() for k, v in Encoder(config, len(units)).state_dict().items() if "num_batches" not in k}
    checkpoint.save(tmp_path / "start.safetensors", ModelInfo("start", "en", config, units), weights)
    start = tmp_path / "start.safetensors"
    monkeypatch.setattr(lesson, "STARTS", {"en": {"small": start, "base": start}})
    yield tmp_path
    gc.collect()  # a trainer is a circle, and holds its mapped recordings open until the collector finds it
