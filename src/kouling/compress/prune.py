"""Structured pruning: attention heads, units of the feed-forward modules and channels of the convolutions are removed,
and what is left is an ordinary checkpoint with smaller tensors.

Letters as in `encoder.py`: D hidden size, H heads, S head size, L left context, K kernel, C channels. An *element* is
one head, unit or channel. All that an element does goes through its own inputs of one linear layer, the *reader* of its
module, so gates on these inputs measure it, and their mean can take its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kouling.checkpoint import ModelInfo
from kouling.compress.losses import Loss
from kouling.config import EncoderConfig
from kouling.encoder import Encoder

Floats = NDArray[np.float64]
Weights = dict[str, NDArray[Any]]

LANES = 16  # numbers that the engine's kernels take at once: it runs multiples of them without padding
FIGURES = ("accuracy", "clips", "validation")  # in a model's provenance; measured on what is no more


@dataclass(frozen=True)
class Module:
    """A module of a block of which elements can be removed."""

    name: str  # "blocks.0.attention"
    kind: str  # "heads", "units" or "channels"
    reader: str  # name of the linear layer
    count: int  # of elements
    size: int  # inputs of the reader that belong to each
    macs: int  # multiply-accumulates of each, per encoder frame
    chunk: int  # elements that are kept or removed together


def modules_of(encoder: EncoderConfig) -> list[Module]:
    """All modules of the blocks, in the order in which they run."""
    width, size, kernel = encoder.hidden_size, encoder.head_size, encoder.conv_kernel_size
    linear = encoder.attention == "linear"
    attended = size * (2 * size + 3) if linear else 2 * size * (encoder.left_context + 1)
    found = []
    for index, shape in enumerate(encoder.blocks):
        for name, kind, reader, count, inputs, macs, chunk in (
            ("feed_forward_in", "units", "contract", shape.ffn_in, 1, 2 * width, LANES),
            ("attention", "heads", "output", shape.heads, size, 4 * width * size + attended, 1),
            ("convolution", "channels", "output", shape.channels, 1, 3 * width + kernel, LANES),
            ("feed_forward_out", "units", "contract", shape.ffn_out, 1, 2 * width, LANES),
        ):
            full = f"blocks.{index}.{name}"
            found.append(Module(full, kind, f"{full}.{reader}", count, inputs, macs, chunk))
    return found


@dataclass(frozen=True)
class Importance:
    """What the loss would lose with each element, by the module's name."""

    scores: Mapping[str, Floats]  # (elements,), at least 0
    means: Mapping[str, Floats]  # mean of the reader's inputs (elements * size,)


def importance(encoder: Encoder, losses: Iterable[Loss]) -> Importance:
    """The first-order Taylor criterion (Molchanov et al. 2019, arXiv:1906.10771, eq. 8, on gates; for heads as in
    Michel et al. 2019, arXiv:1905.10650, eq. 2): the square of what the loss changes by, to first order, where an
    element is taken out of one row of a batch; the mean over all rows.

    losses: one for each batch, the sum over its rows; called with the encoder, in evaluation. Raises: ValueError where
    there are none.
    """
    modules = modules_of(encoder.config.encoder)
    scores = {module.name: np.zeros(module.count) for module in modules}
    sums = {module.name: np.zeros(module.count * module.size) for module in modules}
    rows = frames = 0
    for loss in losses:
        with gated(encoder, modules) as gates:
            value = loss(encoder)
            gradients = torch.autograd.grad(value, [gates[module.name].gate for module in modules])
        for module, gradient in zip(modules, gradients, strict=True):
            scores[module.name] += gradient.double().square().sum(dim=0).numpy()
            sums[module.name] += gates[module.name].total.numpy()
        rows += len(gradients[0])
        frames += gates[modules[0].name].frames
    if not rows:
        raise ValueError("no batch to measure importance on; allowed: one or more")
    return Importance(
        {name: score / rows for name, score in scores.items()}, {name: total / frames for name, total in sums.items()}
    )


class Gate:
    """Ones that the elements of a module are multiplied with, for each row of a batch, and what they were."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.gate: Tensor  # (B, elements)
        self.total: Tensor  # (elements * size,) sum of the reader's inputs
        self.frames = 0  # that it is the sum of, all rows together

    def __call__(self, reader: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
        """A forward pre-hook of the reader. inputs: (B, N, elements * size)."""
        (x,) = inputs
        self.gate = torch.ones(len(x), self.module.count, requires_grad=True)
        self.total = x.detach().double().sum(dim=(0, 1))
        self.frames = x.shape[0] * x.shape[1]
        return (x * self.gate.repeat_interleave(self.module.size, dim=1)[:, None],)


@contextmanager
def gated(encoder: Encoder, modules: Iterable[Module]) -> Iterator[dict[str, Gate]]:
    """A gate on each module, in evaluation and without gradients of weights, which nobody asks for."""
    training = encoder.training
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    gates = {module.name: Gate(module) for module in modules}
    handles = [encoder.get_submodule(gate.module.reader).register_forward_pre_hook(gate) for gate in gates.values()]
    try:
        encoder.eval()
        for parameter in trained:
            parameter.requires_grad_(False)
        yield gates
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
        encoder.train(training)


@dataclass(frozen=True)
class Plan:
    """What is removed: a share of the elements of each kind, or of the multiply-accumulates of all blocks, wherever
    they matter least. In all blocks together; which block loses how many follows from their importance."""

    heads: float = 0.0
    units: float = 0.0
    channels: float = 0.0
    macs: float = 0.0

    def __post_init__(self) -> None:
        for name, share in asdict(self).items():
            if not 0 <= share < 1:
                raise ValueError(f"plan.{name} is {share}; allowed: from 0 to below 1")
        if self.macs and (self.heads or self.units or self.channels):
            raise ValueError(
                f"plan.macs is {self.macs} and heads, units and channels are {self.heads}, {self.units} and "
                f"{self.channels}; allowed: macs alone, or the others"
            )


def prune(
    info: ModelInfo, weights: Mapping[str, NDArray[Any]], importance: Importance, plan: Plan
) -> tuple[ModelInfo, Weights]:
    """The model without its least important elements. What heads say on average goes into the bias of their reader.

    Of units and channels multiples of 16 are left, or all; of each module at least 16, and at least one head.
    Raises: ValueError where the importance is that of another model, or the plan leaves a module empty.
    """
    modules = modules_of(info.config.encoder)
    _check(importance, modules)
    if plan.macs:
        kept = _choose(modules, importance, "macs", plan.macs)
    else:
        kept = {}
        for kind in ("heads", "units", "channels"):
            own = [module for module in modules if module.kind == kind]
            kept.update(_choose(own, importance, kind, getattr(plan, kind)))
    pruned = dict(weights)
    for module in modules:
        _narrow(pruned, module, kept[module.name], importance.means[module.name])
    counts = {kind: [len(kept[m.name]) for m in modules if m.kind == kind] for kind in ("heads", "units", "channels")}
    encoder = replace(
        info.config.encoder,
        layer_heads=counts["heads"],
        layer_ffn=counts["units"],
        layer_channels=counts["channels"],
    )
    provenance = {key: value for key, value in info.provenance.items() if key not in FIGURES}
    provenance["parameters"] = sum(value.size for key, value in pruned.items() if ".running_" not in key)
    provenance["pruned"] = {key: share for key, share in asdict(plan).items() if share}
    smaller = replace(
        info,
        name=f"{info.name}-pruned",
        config=replace(info.config, encoder=encoder),
        provenance=provenance,
    )
    return smaller, pruned


def _check(importance: Importance, modules: list[Module]) -> None:
    for name in {module.name for module in modules} ^ importance.scores.keys():
        raise ValueError(f"the importance is that of another model: {name} is in one of them only")
    for module in modules:
        given = len(importance.scores[module.name])
        if given != module.count:
            raise ValueError(
                f"the importance is that of another model: {module.name} has {module.count} {module.kind}, "
                f"the importance {given}"
            )


def _choose(modules: list[Module], importance: Importance, what: str, share: float) -> dict[str, NDArray[np.int64]]:
    """The elements that stay, by module, ascending: those of most importance for what they cost, where so large a
    share of all costs is saved. Cost: one for each element, or its multiply-accumulates where `what` is "macs".

    Scores of different modules are comparable only in relation to each other, so each module's are divided by their
    norm (Molchanov et al. 2017, arXiv:1611.06440, section 2.2).
    """
    cost = {module.name: module.macs if what == "macs" else 1 for module in modules}
    order = {module.name: np.argsort(-importance.scores[module.name], kind="stable") for module in modules}
    count = {module.name: min(module.chunk, module.count) for module in modules}  # that stay in any case
    total = sum(module.count * cost[module.name] for module in modules)
    spent = sum(count[module.name] * cost[module.name] for module in modules)
    if (1 - share) * total < spent * (1 - 1e-9):
        most = math.floor(1000 * (1 - spent / total)) / 1000
        raise ValueError(f"plan.{what} is {share}, which leaves a module empty; this model allows: at most {most}")
    chunks = []  # (worth, module, how many elements it keeps with this chunk)
    for module in modules:
        scores = importance.scores[module.name][order[module.name]]
        scores = scores / max(float(np.linalg.norm(scores)), 1e-300)
        for first in range(count[module.name], module.count, module.chunk):
            own = scores[first : first + module.chunk]
            chunks.append((float(own.mean()) / cost[module.name], module.name, first + len(own)))
    for _, name, upto in sorted(chunks, key=lambda chunk: -chunk[0]):
        more = (upto - count[name]) * cost[name]
        if spent + more / 2 > (1 - share) * total:
            break
        spent, count[name] = spent + more, upto
    return {name: np.sort(order[name][: count[name]]) for name in order}


def _narrow(weights: Weights, module: Module, kept: NDArray[np.int64], mean: Floats) -> None:
    """Leave only the elements `kept` of a module, in place. mean: of its reader's inputs."""
    inputs = _inputs(kept, module.size)
    weight, bias = f"{module.reader}.weight", f"{module.reader}.bias"
    if module.kind == "heads":  # with units and channels as well, en-base lost 37 points more than without any means
        removed = np.setdiff1d(np.arange(module.count * module.size), inputs)
        constant = weights[weight][:, removed].astype(np.float64) @ mean[removed]
        weights[bias] = (weights[bias] + constant).astype(weights[bias].dtype)
    weights[weight] = weights[weight][:, inputs]

    def keep_rows(name: str, rows: NDArray[np.int64]) -> None:
        weights[f"{module.name}.{name}"] = weights[f"{module.name}.{name}"][rows]

    if module.kind == "units":
        for name in ("expand.weight", "expand.bias"):
            keep_rows(name, kept)
    elif module.kind == "heads":
        width = module.count * module.size
        for name in ("query_key_value.weight", "query_key_value.bias"):
            keep_rows(name, np.concatenate([inputs, inputs + width, inputs + 2 * width]))
        keep_rows("decay" if f"{module.name}.decay" in weights else "distance_bias", kept)
    else:
        for name in ("gate.weight", "gate.bias"):
            keep_rows(name, np.concatenate([kept, kept + module.count]))
        for name in ("depthwise.weight", "depthwise.bias"):
            keep_rows(name, kept)
        for name in ("weight", "bias", "running_mean", "running_var"):
            keep_rows(f"batch_norm.{name}", kept)


def _inputs(elements: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The reader's inputs of these elements."""
    return np.asarray((elements[:, None] * size + np.arange(size)).ravel(), dtype=np.int64)
