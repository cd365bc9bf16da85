"""Plans: which forms of a model keep a budget, the gentlest first.

A candidate is a shape, a way to store weights, and a way to store what is remembered. Its cost is known before
anything is trained (`cost.py`); what it loses is known only afterwards. So candidates are ordered by how much they
take away, and the first that keeps the budget is carried out and verified; where it loses more than is allowed, the
next one is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kouling.checkpoint import ModelInfo
from kouling.compress import cost
from kouling.compress.cost import Cost
from kouling.config import Config, EncoderConfig

KEPT, PRUNED, STUDENT = "as it is", "pruned", "student"
FORMS = (("int8", "float"), ("int8", "bfloat16"), ("int4", "bfloat16"))  # weights and state, the gentlest first
PRUNED_SHARES = (0.1, 0.25, 0.5, 0.75)  # of heads, of feed-forward units, and of convolution channels
MULTIPLE = 16  # units and channels that the engine computes at once
# Students: layers, width, heads of 16, inner width of the feed-forward modules over width, channels and further layers
# of the stem. Each about two thirds of the one before.
STUDENTS = (
    (4, 96, 6, 3, 32, 2),
    (4, 96, 6, 2, 32, 2),
    (4, 64, 4, 3, 24, 2),
    (4, 64, 4, 2, 24, 2),
    (3, 64, 4, 1, 16, 1),
    (2, 64, 2, 1, 16, 1),
    (2, 48, 2, 1, 12, 1),
    (2, 32, 2, 1, 8, 1),
    (1, 32, 1, 1, 8, 0),
    (1, 16, 1, 1, 4, 0),
)


@dataclass(frozen=True)
class Budget:
    """What the model may take: bytes of model file and variables together, milliseconds of a call of `frames` feature
    frames, percentage points of accuracy that may be lost."""

    memory_bytes: int | None = None
    latency_ms: float | None = None
    frames: int = 500
    max_loss: float = 0.5

    def keeps(self, found: Cost) -> bool:
        memory = self.memory_bytes is None or found.total_bytes <= self.memory_bytes
        return memory and (self.latency_ms is None or found.call_ms <= self.latency_ms)


@dataclass(frozen=True)
class Candidate:
    kind: str  # KEPT, PRUNED or STUDENT
    config: Config
    weights: str
    state: str
    share: float = 0.0  # pruned away
    cost: Cost | None = field(default=None, compare=False)

    @property
    def shape(self) -> str:
        encoder = self.config.encoder
        return {
            KEPT: "whole",
            PRUNED: f"pruned-{round(100 * self.share)}",
            STUDENT: f"student-{encoder.layers}x{encoder.hidden_size}-{encoder.ffn_expansion}",
        }[self.kind]

    @property
    def name(self) -> str:
        return f"{self.shape}-{self.weights}-{self.state}"

    @property
    def needs_training(self) -> bool:
        return self.kind != KEPT

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, "cost": self.cost.to_dict() if self.cost else None}


def candidates(info: ModelInfo, forms: Sequence[tuple[str, str]] = FORMS) -> list[Candidate]:
    """All forms of a model, the gentlest first: whole, pruned, then students; each as int8 and then as int4, whose
    rounding costs less than the next share that pruning takes. forms: those of a target."""
    found = [Candidate(KEPT, info.config, *form) for form in forms]
    smaller = forms[1:] or forms  # a state of bfloat16 costs nothing that is worth pruning for
    for share in PRUNED_SHARES:
        encoder = pruned_shape(info.config.encoder, share)
        if encoder is not None:
            found += [Candidate(PRUNED, replace(info.config, encoder=encoder), *form, share=share) for form in smaller]
    own = cost.parameters_of(info)
    for shape in STUDENTS:
        config = replace(info.config, encoder=student_shape(info.config.encoder, *shape))
        if cost.parameters_of(replace(info, config=config)) < 0.75 * own:
            found += [Candidate(STUDENT, config, *form) for form in smaller]
    return found


def pruned_shape(encoder: EncoderConfig, share: float) -> EncoderConfig | None:
    """The shape that pruning every layer alike would leave, to know its cost; None where nothing can be taken."""
    left = 1 - share

    def fewer(number: int, multiple: int) -> int:
        return max(round(number * left / multiple), 1) * multiple

    changed = replace(
        encoder,
        layer_heads=[fewer(block.heads, 1) for block in encoder.blocks],
        layer_ffn=[fewer(n, MULTIPLE) for block in encoder.blocks for n in (block.ffn_in, block.ffn_out)],
        layer_channels=[fewer(block.channels, MULTIPLE) for block in encoder.blocks],
    )
    return None if changed.blocks == encoder.blocks else changed


def student_shape(
    encoder: EncoderConfig, layers: int, width: int, heads: int, expansion: int, channels: int, further: int
) -> EncoderConfig:
    """A smaller encoder on the time grid of a larger one: same steps, same lookahead, same memory of the past. Batch
    normalisation, of which nothing is left to run: small models learn one to three points more with it."""
    whole = width // 16
    return replace(
        encoder,
        layers=layers,
        hidden_size=width,
        attention_heads=whole,
        ffn_expansion=expansion,
        conv_kernel_size=min(encoder.conv_kernel_size, 15),
        stem_channels=channels,
        stem_layers=further,
        norm="batch",
        layer_heads=[] if heads == whole else [heads] * layers,
        layer_ffn=[],
        layer_channels=[],
    )


def priced(
    found: Sequence[Candidate], price: Callable[[Candidate], Cost], report: Callable[[int], None] = lambda done: None
) -> Iterator[Candidate]:
    """The candidates that the target runs, with their costs. price: raises ValueError where it does not. report: gets
    how many are done. Raises: ValueError where none can be priced, saying why: for want of a package, perhaps."""
    refused: list[ValueError] = []
    for done, each in enumerate(found, start=1):
        try:
            taken = price(each)
        except ValueError as error:  # no shape for it
            refused.append(error)
            taken = None
        report(done)
        if taken is not None:
            yield replace(each, cost=taken)
    if refused and len(refused) == len(found):
        raise refused[0]


def choose(priced_candidates: Sequence[Candidate], budget: Budget, trainable: bool) -> list[Candidate]:
    """Those that keep the budget, the gentlest first. trainable: whether there is data to train on.

    Raises: ValueError where none does, naming the nearest budget that could be kept.
    """
    allowed = [each for each in priced_candidates if trainable or not each.needs_training]
    fitting = [each for each in allowed if each.cost and budget.keeps(each.cost)]
    if fitting:
        return fitting
    costs = [each.cost for each in allowed if each.cost]
    least_bytes, least_ms = min(each.total_bytes for each in costs), min(each.call_ms for each in costs)
    asked = []
    if budget.memory_bytes is not None:
        asked.append(f"{budget.memory_bytes / 1000:,.0f} KB (the least that can be: {least_bytes / 1000:,.0f} KB)")
    if budget.latency_ms is not None:
        asked.append(f"{budget.latency_ms:g} ms for {budget.frames} frames (the least: {least_ms:.2g} ms)")
    untrained = "" if trainable else " without training; --recipe and --data allow more"
    raise ValueError(f"no form of this model keeps {' and '.join(asked)}{untrained}")
