"""The report of a study: its answer, a picture of the Pareto front, and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kouling.measure import pictures
from kouling.measure.page import Page
from kouling.measure.tune import Outcome, Study
from kouling.measure.words import Say, speaker

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAD = ("setting", "right", "±", "delay ms", "heard ms", "p95", "mul-adds/s", "µs/s", "KB", "front")
LEGEND = (
    "Setting: chunk/cached/step, in feature frames of 10 ms. ±: half of the 95 % interval.",
    "Delay: the step and its lookahead. Heard: from the word's end to the command, median and p95.",
    "µs/s: of one core in the C engine for a second of audio, a step at a time. KB: model and stream.",
    "Front: no other setting is as good in right, delay, mul-adds and KB.",
)


def row(each: Outcome, front: list[Outcome]) -> list[str | bool]:
    """The cells below `HEAD`."""
    low, high = each.interval
    waits = [each.wait_ms(percent) for percent in (50, 95)]
    return [
        str(each.setting),
        f"{each.accuracy:.2%}",
        f"{(high - low) / 2:.1%}",
        str(each.setting.delay_ms),
        *("–" if wait is None else f"{wait:.0f}" for wait in waits),
        f"{each.multiply_accumulates / 1e6:.1f} M",
        f"{each.microseconds:.0f}",
        f"{each.total_bytes / 1000:.0f}",
        each in front,
    ]


def answer(study: Study, delay_ms: float, say: Say) -> str:
    """The best setting of at most that delay, in a sentence."""
    best = study.best(delay_ms)
    limit = f"{delay_ms:g} ms"
    if best is None:
        least = min(each.setting.delay_ms for each in study.outcomes)
        return say("No setting has a delay of at most {limit}; the least is {least} ms.").format(
            limit=limit, least=least
        )
    wait = best.wait_ms(50)
    heard = "" if wait is None else say(", {wait:.0f} ms from the word's end to the command").format(wait=wait)
    return say("Best within {limit} of delay: {setting} with {accuracy} right{heard}, {size:.0f} KB.").format(
        limit=limit,
        setting=best.setting,
        accuracy=f"{best.accuracy:.2%}",
        heard=heard,
        size=best.total_bytes / 1000,
    )


def page(study: Study, delay_ms: float, lang: str) -> Page:
    """Raises: ValueError for a language that there is none of, or without matplotlib."""
    say = speaker(lang)
    made = Page(f"{say('Tuning')} {study.info.name}", lang, study.measurements())
    made.verdict(answer(study, delay_ms, say), study.best(delay_ms) is not None)
    counted = say("{done} of {there} clips, every setting on the same ones.")
    made.text(counted.format(done=study.done, there=study.there))
    made.picture(
        pictures.svg(picture(study, delay_ms, say)), say("Circled: as trained. Line: nothing is better in both.")
    )
    front, best = study.pareto(), study.best(delay_ms)
    made.table(
        [say(label) for label in HEAD],
        [row(each, front) for each in study.outcomes],
        bold=[index for index, each in enumerate(study.outcomes) if each is best],
    )
    made.text(" ".join(map(say, LEGEND)), soft=True)
    if study.impossible:
        made.heading(say("Not without training, or not at all"))
        made.table(
            [say("setting"), say("reason")],
            [[str(setting), reason] for setting, reason in study.impossible],
        )
    if study.unreadable:
        made.heading(say("Clips that could not be read"))
        made.table([say("reason")], [[reason] for reason in study.unreadable])
    return made


def picture(study: Study, delay_ms: float, say: Say) -> Figure:
    """Accuracy over delay and over compute, each with its own Pareto front. Raises: ValueError without matplotlib."""
    made, axes = pictures.figure(10.0, 4.8, columns=2)
    import matplotlib

    with matplotlib.rc_context(pictures.STYLE):
        draw(axes[0], axes[1], study, delay_ms, say)
    return made


def draw(left: Axes, right: Axes, study: Study, delay_ms: float, say: Say) -> None:
    caches = sorted({each.setting.cached for each in study.outcomes})
    colors = {cached: pictures.COLORS[i % len(pictures.COLORS)] for i, cached in enumerate(caches)}
    markers = dict(zip(sorted({each.setting.step for each in study.outcomes}), "osD^vPX" * 9, strict=False))
    sizes = {cached: 30 + 50 * i for i, cached in enumerate(caches)}  # one on another, all can be seen
    best, top = study.best(delay_ms), study.best(float("inf"))
    assert top is not None

    def scatter(axis: Axes, costs: list[float], label: str) -> None:
        rights = [100 * each.accuracy for each in study.outcomes]
        front = front_of(list(zip(costs, rights, strict=True)))
        axis.step([x for x, _ in front], [y for _, y in front], where="post", color="#666666", linewidth=1.2, zorder=1)
        for each, x, y in zip(study.outcomes, costs, rights, strict=True):
            cached, marker = each.setting.cached, markers[each.setting.step]
            axis.scatter(x, y, sizes[cached], color=colors[cached], marker=marker, zorder=4 - sizes[cached] / 1000)
            if each.as_trained:
                axis.scatter(x, y, 330, facecolors="none", edgecolors="black", linewidths=1.2, zorder=5)
            if each in (best, top):
                axis.annotate(str(each.setting), (x, y), (0, 14), textcoords="offset points", ha="center", fontsize=9)
        axis.set(xlabel=say(label), ylabel=say("% of clips right"))
        axis.margins(0.15)

    scatter(left, [each.setting.delay_ms for each in study.outcomes], "delay ms")
    left.axvline(delay_ms, color="#666666", linestyle=":", linewidth=1.2)
    left.set_xlim(left=0)
    within = say("Nothing within {limit}") if best is None else say("Within {limit}: {accuracy} right")
    pictures.title(left, within.format(limit=f"{delay_ms:g} ms", accuracy=f"{best.accuracy:.1%}" if best else ""))
    scatter(right, [each.microseconds for each in study.outcomes], "µs/s")
    pictures.title(right, say("At any delay: {accuracy} right").format(accuracy=f"{top.accuracy:.1%}"))
    for cached, color in colors.items():
        right.scatter([], [], 60, color=color, label=f"{say('cached')} {cached}")
    for step, marker in markers.items():
        right.scatter([], [], 60, color="#666666", marker=marker, label=f"{say('step')} {step}")
    right.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def front_of(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, value), by rising cost: those worth more than all that cost no more."""
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front
