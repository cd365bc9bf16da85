"""Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531): what a trained model says of each frame teaches more
than that a word was somewhere around.

The teacher is any checkpoint that hears the same features and knows all units of the student. It need not fit anywhere,
and it needs no labels, so running speech teaches too.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kouling import checkpoint
from kouling.commands import UNKNOWN
from kouling.config import Config
from kouling.deploy import step
from kouling.train import precision
from kouling.train.precision import put

CPU = torch.device("cpu")
ROWS = 64  # scenes heard at once
BEHIND = 60  # feature frames of silence behind a scene, in which its last word is said
LEAST = 1e-6  # probability of what a teacher does not think of


class Teacher:
    """A trained model, its units mapped to those of a student. Never trained, never saved."""

    def __init__(self, path: Path, config: Config, units: Sequence[str], device: torch.device = CPU) -> None:
        """config, units: the student's. Raises: ValueError where the teacher hears other features or lacks a unit;
        FileNotFoundError."""
        info, weights = checkpoint.load(path)
        if info.config.features != config.features:
            raise ValueError(f"{path}: this teacher hears other features than the student; allowed: the same")
        lacking = [unit for unit in units if unit not in info.units]
        if lacking:
            raise ValueError(f"{path}: this teacher does not know {', '.join(lacking)}")
        self.model = step.build(info, weights).requires_grad_(False).to(device)
        self.device = device
        # What the student has no unit for is a word that it does not know.
        self.columns = [list(units).index(unit if unit in units else UNKNOWN) for unit in info.units]
        self.num_units = len(units)
        self.fingerprint = zlib.crc32(path.read_bytes())
        self.own = info.config.encoder.subsampling

    def hear(self, features: NDArray[np.float16], hidden: bool, kept: Path | None = None) -> Heard:
        """features: (R, T, M) of many scenes, as they were drawn: before anything hides them from the student.

        kept: folder in which it is left for other runs with the same teacher and scenes. Raises: OSError.
        """
        if kept is None:
            return self._hear(features, hidden)
        described = repr((self.fingerprint, self.columns, self.num_units, hidden, features.shape))
        key = hashlib.sha256(described.encode() + features[::97].tobytes()).hexdigest()[:12]
        path = kept / f"taught-{key}.npz"
        if path.exists():
            with np.load(path) as file:
                return Heard(file["log_probs"], file["hidden"] if hidden else None, self.own)
        heard = self._hear(features, hidden)
        kept.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
        try:
            deep = np.zeros(0, dtype=np.float16) if heard.hidden is None else heard.hidden
            np.savez(temporary, log_probs=heard.log_probs, hidden=deep)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return heard

    @torch.no_grad()
    def _hear(self, features: NDArray[np.float16], hidden: bool) -> Heard:
        frames = (features.shape[1] + BEHIND) // self.own
        behind = frames * self.own - features.shape[1]
        log_probs = np.empty((len(features), frames, self.num_units), dtype=np.float16)
        width = self.model.config.encoder.hidden_size
        deep = np.empty((len(features), frames, width), dtype=np.float16) if hidden else None
        seen: list[Tensor] = []
        handle = self.model.blocks[-1].register_forward_hook(lambda *call: seen.append(call[2][0]))
        try:
            for first in range(0, len(features), ROWS):
                rows = slice(first, min(first + ROWS, len(features)))
                count = rows.stop - first
                # A last few are filled up to a whole batch: a compiled model is compiled anew for every shape.
                missing = ROWS - count if len(features) > ROWS else 0
                batch = F.pad(put(features[rows], self.device).float(), (0, 0, 0, behind, 0, missing))
                with precision.mixed(self.device):
                    found, _ = self.model(batch, self.model.initial_state(len(batch)))
                found = found[:count]
                probabilities = found.new_zeros(*found.shape[:2], self.num_units)
                probabilities.index_add_(2, torch.tensor(self.columns, device=self.device), found.exp())
                log_probs[rows] = probabilities.clamp(min=LEAST).log().cpu().numpy()
                if deep is not None:
                    deep[rows] = seen[-1][:count].float().cpu().numpy()
                seen.clear()
        finally:
            handle.remove()
        return Heard(log_probs, deep, self.own)


@dataclass
class Heard:
    """What a teacher makes of a set of scenes."""

    log_probs: NDArray[np.float16]  # (R, N of the teacher, V)
    hidden: NDArray[np.float16] | None  # (R, N of the teacher, D of the teacher), its last block's output
    own: int  # feature frames of a frame

    def on(
        self, rows: NDArray[np.int64], before: int, subsampling: int, num_frames: int, device: torch.device = CPU
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities (B, N, V) and hidden states (B, N, D) on a student's frames, who hears the scenes `before`
        feature frames later: of what the teacher said in the time of a frame the surest that is not blank. Both say
        what they heard when they say it, whatever they look ahead, so their times need no other alignment."""
        log_probs = put(self.log_probs[rows], device).float()
        made = (torch.arange(num_frames) + 1) * subsampling - before  # feature frames of the scene heard by then
        last = made // self.own - 1
        first = torch.minimum((made - subsampling) // self.own, last)
        candidates = torch.minimum(first[:, None] + torch.arange(int((last - first).max()) + 1), last[:, None])
        outside = (candidates < 0) | (candidates >= log_probs.shape[1])
        candidates = put(candidates.clamp(0, log_probs.shape[1] - 1), device)  # (N, some)
        best = log_probs[..., 0][:, candidates].argmin(dim=2)  # (B, N)
        own = torch.arange(num_frames, device=device)
        frames = candidates[own, best]
        silent = put(outside, device)[own, best]  # before the scene and behind it nothing is said
        chosen = log_probs.gather(1, frames[..., None].expand(-1, -1, log_probs.shape[2]))
        nothing = torch.full_like(chosen[0, 0], float(np.log(LEAST)))
        nothing[0] = 0.0
        chosen = torch.where(silent[..., None], nothing, chosen).log_softmax(dim=-1)
        if self.hidden is None:
            return chosen, None
        deep = put(self.hidden[rows], device).float()
        return chosen, deep.gather(1, frames[..., None].expand(-1, -1, deep.shape[2]))


def divergence(log_probs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence from the teacher's frames to the student's, summed over frames, per row (B,), both
    softened by `temperature` and scaled back (Hinton et al. 2015, section 2)."""
    if temperature != 1.0:
        log_probs, taught = (F.log_softmax(x / temperature, dim=-1) for x in (log_probs, taught))
    return (taught.exp() * (taught - log_probs)).sum(dim=(1, 2)) * temperature**2


class HiddenStates(nn.Module):
    """The distance of the last blocks' outputs after a learned projection (Romero et al. 2015, FitNets,
    arXiv:1412.6550, eq. 3). Trained with the student, no part of it."""

    def __init__(self, width: int, taught_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, taught_width)

    def forward(self, hidden: Tensor, taught: Tensor) -> Tensor:
        """hidden: (B, N, D), taught: (B, N, D of the teacher) -> mean square per frame, summed over frames (B,)."""
        away: Tensor = self.project(hidden) - taught
        return away.square().mean(dim=2).sum(dim=1)
