"""Recordings of words heard by an earlier model: which hold no such word at all, and where the word ends in the others.

Collected recordings are not what they are called: of Speech Commands, one in fifty holds nothing, or another word. A
model that is told they are words takes silence for one. And their background hides where the word ends, which is when
it may be said.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from kouling.audio import SAMPLE_RATE_HZ
from kouling.commands import UNKNOWN
from kouling.deploy import step
from kouling.train.data import Clip, Corpus
from kouling.train.logmel import BatchLogMel
from kouling.train.loss import LONGEST_S, one_unit_scores

Weighted = tuple[Corpus, Clip, float]

BEFORE_S = 2.3  # silence before and after a clip; a model that learned streams hears less at the start of one
AFTER_S = 0.6
LONGEST_CLIP_S = 2.5
LEAST = -2.5  # nats by which the likeliest other reading of a clip may be likelier than its label
LEAST_UNKNOWN = -1.0  # the same for an unknown word; stricter, as there is no want of them
SLACK_S = 0.1  # by which the energy may place the end of a word elsewhere than the model


class Aligner:
    """A trained model, and what it heard of each clip, remembered in a cache."""

    def __init__(self, path: Path, cache: Path) -> None:
        """Raises: ValueError where the file is no checkpoint; FileNotFoundError."""
        self.info, self.model = step.load(path)
        self.log_mel = BatchLogMel(self.info.config.features)
        self.identity = hashlib.sha256(path.read_bytes())
        self.cache = cache

    def align(self, words: Mapping[str, Sequence[Weighted]]) -> dict[str, list[Weighted]]:
        """The clips in which the model hears their word, the bounds of the speech set right. Clips of words that the
        model does not know come back as they are."""
        known = {word: clips for word, clips in words.items() if clips and word in self.info.units}
        pairs = [(self.info.units.index(word), clip) for word, clips in known.items() for clip in clips]
        margins, spikes_s = self.hear(pairs)
        kept: dict[str, list[Weighted]] = {word: list(clips) for word, clips in words.items()}
        start = 0
        for word, clips in known.items():
            here = slice(start, start := start + len(clips))
            late_s = lateness(spikes_s[here], [clip for _, clip, _ in clips])
            kept[word] = [
                (corpus, bounded(clip, float(spike_s) - late_s), weight)
                for (corpus, clip, weight), margin, spike_s in zip(clips, margins[here], spikes_s[here], strict=True)
                if margin >= LEAST
            ]
        return kept

    def without_words(self, pieces: Sequence[tuple[Corpus, Clip]]) -> list[tuple[Corpus, Clip]]:
        """The pieces of speech in which the model hears an unknown word rather than silence or one of its own words,
        which running speech is full of."""
        if UNKNOWN not in self.info.units:
            return list(pieces)
        unknown = self.info.units.index(UNKNOWN)
        margins, _ = self.hear([(unknown, (corpus, clip, 1.0)) for corpus, clip in pieces])
        return [piece for piece, margin in zip(pieces, margins, strict=True) if margin >= LEAST_UNKNOWN]

    def hear(self, pairs: Sequence[tuple[int, Weighted]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """For each clip and its unit: by how many nats the unit, said once, is likelier than anything else, and the
        second of the clip at which it is said."""
        key = self.identity.copy()
        key.update(f"{BEFORE_S} {AFTER_S}\n".encode())
        key.update("\n".join(f"{unit} {clip.length} {clip.name}" for unit, (_, clip, _) in pairs).encode())
        path = self.cache / f"aligned-{key.hexdigest()[:12]}.npy"
        if not path.exists():
            heard = np.zeros((2, len(pairs)), dtype=np.float32)
            for first in track(range(0, len(pairs), 256), "aligning words", disable=len(pairs) < 1000):
                heard[:, first : first + 256] = self._hear(pairs[first : first + 256])
            temporary = path.with_suffix(f".{os.getpid()}.tmp.npy")
            np.save(temporary, heard)
            os.replace(temporary, path)
        margins, spikes_s = np.load(path)
        return margins, spikes_s

    @torch.no_grad()
    def _hear(self, pairs: Sequence[tuple[int, Weighted]]) -> NDArray[np.float32]:
        before = round(BEFORE_S * SAMPLE_RATE_HZ)
        longest = min(max(clip.length for _, (_, clip, _) in pairs), round(LONGEST_CLIP_S * SAMPLE_RATE_HZ))
        samples = np.zeros((len(pairs), before + longest + round(AFTER_S * SAMPLE_RATE_HZ)), dtype=np.float32)
        for row, (_, (corpus, clip, _)) in enumerate(pairs):
            taken = corpus.of(clip)[:longest]
            samples[row, before : before + len(taken)] = taken
        features = self.log_mel(torch.from_numpy(samples))
        whole = features.shape[1] // self.info.config.encoder.subsampling * self.info.config.encoder.subsampling
        log_probs, _ = self.model(features[:, :whole], self.model.initial_state(len(pairs)))
        units = torch.tensor([unit for unit, _ in pairs])
        scores = one_unit_scores(log_probs)
        own = scores.gather(1, units[:, None])[:, 0]
        others = scores.scatter(1, units[:, None], -torch.inf).amax(dim=1)
        said = log_probs.exp()[torch.arange(len(pairs)), :, units]  # (B, N)
        frame = (said * torch.arange(said.shape[1])).sum(dim=1) / said.sum(dim=1).clamp(min=1e-6)
        spike_s = (frame + 0.5) * self.info.config.encoder_frame_s
        spike_s -= self.info.config.encoder.lookahead * self.info.config.features.frame_shift_ms / 1000 + BEFORE_S
        return torch.stack([own - others, spike_s]).numpy()


def lateness(spikes_s: NDArray[np.float32], clips: Sequence[Clip]) -> float:
    """How long after its end the model says a word: the median where the energy tells where that is, in the recordings
    that it finds shorter than most, but not the very shortest."""
    lengths = np.array([clip.speech_end - clip.speech_start for clip in clips])
    shortest, middle = np.percentile(lengths, [10, 50])
    plain = (lengths >= shortest) & (lengths <= middle)
    ends_s = np.array([clip.speech_end / SAMPLE_RATE_HZ for clip in clips])
    return float(np.median((spikes_s - ends_s)[plain]))


def bounded(clip: Clip, end_s: float) -> Clip:
    """The clip with its speech ending about where the model heard it end, and no longer than a word."""
    middle, slack = end_s * SAMPLE_RATE_HZ, SLACK_S * SAMPLE_RATE_HZ
    end = int(np.clip(clip.speech_end, middle - slack, middle + slack))
    end = min(max(end, SAMPLE_RATE_HZ // 10), clip.length)
    start = max(clip.speech_start, end - round(LONGEST_S * SAMPLE_RATE_HZ))
    return replace(clip, speech_start=min(start, end - SAMPLE_RATE_HZ // 20), speech_end=end)
