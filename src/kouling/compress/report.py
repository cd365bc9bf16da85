"""What compression did, as one page: the way from before to after, what was given up for it, and what was refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kouling.compress.cost import Cost
from kouling.measure import pictures
from kouling.measure.intervals import wilson
from kouling.measure.page import Page

if TYPE_CHECKING:
    from kouling.compress.run import Compression

HEAD = ("stage", "parameters", "model", "variables", "total KB", "step µs", "call ms", "right", "what was done")


@dataclass(frozen=True)
class Stage:
    """A form of the model on the way, measured on the target."""

    name: str
    done: str  # a sentence
    cost: Cost
    right: int | None  # of `clips` validation clips; None where there are none to verify with
    clips: int
    seconds: float  # that it took

    @property
    def accuracy(self) -> float | None:
        return None if self.right is None else self.right / self.clips

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "done": self.done,
            "cost": self.cost.to_dict(),
            "accuracy": self.accuracy,
            "right": self.right,
            "clips": self.clips,
            "seconds": round(self.seconds, 1),
        }

    @staticmethod
    def from_dict(table: dict[str, Any]) -> Stage:
        cost = {key: value for key, value in table["cost"].items() if key != "total_bytes"}
        return Stage(table["name"], table["done"], Cost(**cost), table["right"], table["clips"], table["seconds"])


def row(stage: Stage) -> tuple[str, ...]:
    cost = stage.cost
    right = "not verified" if stage.accuracy is None else f"{stage.accuracy:.2%}"
    return (
        stage.name,
        f"{cost.parameters:,}",
        *(f"{each / 1000:,.0f}" for each in (cost.model_bytes, cost.variable_bytes, cost.total_bytes)),
        f"{cost.step_us:.1f}",
        f"{cost.call_ms:.2f}",
        right,
        stage.done,
    )


def page(work: Compression) -> Page:
    """Raises: ValueError where matplotlib is not installed."""
    first, last, budget = work.stages[0], work.stages[-1], work.budget
    made = Page(f"{work.info.name}: {first.cost.total_bytes / last.cost.total_bytes:.1f} times smaller")
    for passed, text in work.verdicts():
        made.verdict(text, passed)
    made.heading("From before to after")
    made.picture(waterfall(work.stages))
    made.table(HEAD, [row(stage) for stage in work.stages], bold=[len(work.stages) - 1])
    made.text(
        f"{work.target.said} A call is {last.cost.frames} feature frames of 10 ms, computed step by step in the same "
        "memory. "
        + (f"Right: of {last.clips:,} validation clips, by the recogniser as it ships." if last.right else ""),
        soft=True,
    )
    if last.right is not None:
        made.heading("What smaller costs")
        made.picture(front([*work.stages, *work.refused]))
    if work.rejected:
        made.heading("What was rejected, and why")
        made.table(("candidate", "why"), work.rejected)
    made.heading("What was considered")
    made.table(
        ("candidate", "parameters", "total KB", "step µs", "call ms", "keeps the budget"),
        [
            (
                each.name,
                f"{each.cost.parameters:,}",
                f"{each.cost.total_bytes / 1000:,.0f}",
                f"{each.cost.step_us:.1f}",
                f"{each.cost.call_ms:.2f}",
                budget.keeps(each.cost),
            )
            for each in work.considered
            if each.cost
        ],
    )
    return made


def waterfall(stages: Sequence[Stage]) -> str:
    """Bytes and accuracy, stage by stage."""
    verified = stages[-1].right is not None
    drawn, (sizes, *others) = pictures.figure(9.0, 1.8 + 0.45 * len(stages), columns=1 + verified)
    names = [stage.name for stage in stages]
    model = [stage.cost.model_bytes / 1000 for stage in stages]
    variable = [stage.cost.variable_bytes / 1000 for stage in stages]
    places = range(len(stages))
    sizes.barh(places, model, color=pictures.COLORS[1], label="model")
    sizes.barh(places, variable, left=model, color=pictures.COLORS[4], label="variables")
    most = max(a + b for a, b in zip(model, variable, strict=True))
    for place, total in zip(places, (a + b for a, b in zip(model, variable, strict=True)), strict=True):
        sizes.text(total + most * 0.01, place, f"{total:,.0f}", va="center", fontsize=9)
    sizes.set_yticks(places, names)
    sizes.invert_yaxis()
    sizes.set(xlabel="KB", xlim=(0, 1.15 * most))
    sizes.legend(loc="lower right")
    pictures.title(sizes, f"{most:,.0f} KB before, {model[-1] + variable[-1]:,.0f} KB after")
    for rights in others:
        rights.set_yticks(places, [""] * len(stages))
        rights.set_ylim(sizes.get_ylim())
        for place, stage in zip(places, stages, strict=True):
            low, high = (100 * bound for bound in wilson(stage.right or 0, stage.clips))
            right = 100 * (stage.accuracy or 0)
            rights.plot([low, high], [place, place], color=pictures.COLORS[6], linewidth=1.2)
            rights.plot(right, place, "o", color=pictures.COLORS[0])
            rights.text(right, place - 0.15, f"{right:.2f}", ha="center", va="bottom", fontsize=9)
        rights.set(xlabel="% of validation clips right, 95 % interval")
        lost = 100 * ((stages[0].accuracy or 0) - (stages[-1].accuracy or 0))
        pictures.title(rights, f"{lost:.2f} points lost" if lost >= 0 else f"{-lost:.2f} points won")
    return pictures.svg(drawn)


def front(stages: Sequence[Stage]) -> str:
    """Accuracy over bytes, the best of each size joined."""
    drawn, (axis,) = pictures.figure(8.0, 4.0)
    points = sorted((stage.cost.total_bytes / 1000, 100 * (stage.accuracy or 0), stage.name) for stage in stages)
    best: list[tuple[float, float]] = []
    for size, right, name in points:
        if not best or right > best[-1][1]:
            best.append((size, right))
        axis.plot(size, right, "o", color=pictures.COLORS[1])
        axis.annotate(name, (size, right), (4, 6), textcoords="offset points", fontsize=9)
    axis.step([x for x, _ in best], [y for _, y in best], where="post", color=pictures.COLORS[6], linewidth=1.2)
    axis.set(xlabel="model and variables, KB", ylabel="% right", xscale="log")
    axis.margins(0.2)
    (least, low, _), (most, high, _) = points[0], points[-1]
    pictures.title(axis, f"{low:.1f} % right in {least:,.0f} KB, {high:.1f} % in {most:,.0f} KB")
    return pictures.svg(drawn)
