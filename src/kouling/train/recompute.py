"""Training in less memory: what a block computes is computed once more for the gradient, not kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from kouling.encoder import Encoder


def recompute_blocks(encoder: Encoder) -> None:
    """In training, keep only what goes into each block, and compute the rest once more for the gradient (Chen et al.
    2016, arXiv:1604.06174, section 4), with the same random numbers."""
    for block in encoder.blocks:
        # Not around the call, whose hooks (`Trainer.watched`) would then be called twice.
        block.forward = partial(
            checkpoint,
            block.forward,
            use_reentrant=False,
            preserve_rng_state=True,
            context_fn=partial(_contexts, block),
        )


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Of the first computation, and of the second."""
    return nullcontext(), _statistics_left_alone(block)


@contextmanager
def _statistics_left_alone(block: nn.Module) -> Iterator[None]:
    """Batch normalisation has counted the batch the first time. Autograd wants to see it do the same again, so it does,
    with no weight on the batch, and its count of batches is put back."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    counts = {name: buffer.clone() for name, buffer in block.named_buffers() if name.endswith("num_batches_tracked")}
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for name, count in counts.items():
            block.get_buffer(name).copy_(count)
