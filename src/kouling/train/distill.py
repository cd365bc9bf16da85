"""Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531): what a trained model says of each frame teaches more
than that a word was somewhere around.

The teacher is any checkpoint that hears the same features and knows all units of the student. It need not fit anywhere,
and it needs no labels, so running speech teaches too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kouling import checkpoint
from kouling.commands import UNKNOWN
from kouling.config import Config
from kouling.deploy import step


class Teacher(nn.Module):
    """A trained model, its frames and units mapped to those of a student. Never trained, never saved."""

    def __init__(self, path: Path, config: Config, units: Sequence[str]) -> None:
        """config, units: the student's. Raises: ValueError where the teacher hears other features or lacks a unit;
        FileNotFoundError."""
        super().__init__()
        info, weights = checkpoint.load(path)
        if info.config.features != config.features:
            raise ValueError(f"{path}: this teacher hears other features than the student; allowed: the same")
        lacking = [unit for unit in units if unit not in info.units]
        if lacking:
            raise ValueError(f"{path}: this teacher does not know {', '.join(lacking)}")
        self.model = step.build(info, weights).requires_grad_(False)
        # What the student has no unit for is a word that it does not know.
        self.columns = [list(units).index(unit if unit in units else UNKNOWN) for unit in info.units]
        self.num_units = len(units)
        self.subsampling, self.own = config.encoder.subsampling, info.config.encoder.subsampling

    @torch.no_grad()
    def forward(self, features: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
        """features: (B, T, M) -> log-probabilities (B, N, V) on the student's frames and units, and the output of the
        last block (B, N, D) on the same frames. num_frames: N."""
        whole = features[:, : features.shape[1] // self.own * self.own]
        hidden, handle = [], self.model.blocks[-1].register_forward_hook(lambda *call: hidden.append(call[2][0]))
        try:
            log_probs, _ = self.model(whole, self.model.initial_state(len(features)))
        finally:
            handle.remove()
        frames = self.frames_for(log_probs, num_frames)  # (B, N)
        chosen = log_probs.gather(1, frames[..., None].expand(-1, -1, log_probs.shape[2])).exp()
        probabilities = chosen.new_zeros(*frames.shape, self.num_units)
        probabilities.index_add_(2, torch.tensor(self.columns), chosen)
        deep = hidden[0].gather(1, frames[..., None].expand(-1, -1, hidden[0].shape[2]))
        return probabilities.clamp(min=1e-8).log(), deep.float()

    def frames_for(self, log_probs: Tensor, num_frames: int) -> Tensor:
        """(B, N): for each frame of the student the teacher's that was made in its time; of several the one surest that
        something is said. Both say what they heard when they say it, whatever they looked ahead."""
        blank = log_probs[..., 0]
        made = (torch.arange(num_frames) + 1) * self.subsampling  # feature frames heard by then
        last = (made // self.own - 1).clamp(0, blank.shape[1] - 1)
        first = torch.minimum((made - self.subsampling) // self.own, last)
        most = int((last - first).max()) + 1
        candidates = torch.minimum(first[:, None] + torch.arange(most), last[:, None])  # (N, most)
        best = blank[:, candidates].argmin(dim=2)  # (B, N)
        return candidates[torch.arange(num_frames), best]


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
