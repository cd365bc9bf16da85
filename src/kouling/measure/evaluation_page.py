"""The page of `kouling evaluate --report`: what is heard, what is mistaken, what disturbs, and what it sounds like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kouling.measure import pictures
from kouling.measure.accuracy import SILENCE, UNKNOWN, Evaluation
from kouling.measure.intervals import wilson
from kouling.measure.measurement import Measurement, measured
from kouling.measure.near import ALARM, ALMOST, MISSED
from kouling.measure.page import Page
from kouling.measure.study import Running, Shares, Study
from kouling.measure.words import Say, speaker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERED_LABELS = 32  # in a bigger matrix there is no room for numbers


def write(made: Study, folder: Path, model: str, runtime: str, lang: str) -> Path:
    """The page in `folder`, `result.json` beside it -> its path. Raises: ValueError without matplotlib; OSError."""
    say = speaker(lang)
    page = Page(say("What {model} hears").format(model=model), lang)
    page.measurements = measurements(made, model, runtime)
    _commands(page, made, say)
    _running(page, made, say)
    _conditions(page, made, say)
    _times(page, made, say)
    _near(page, made, folder, say)
    if made.skipped:
        page.heading(say("Recordings that cannot be read"))
        page.text(say("{count} were left out:").format(count=len(made.skipped)))
        for line in made.skipped[:50]:
            page.text(line, soft=True)
    return page.write(folder, made.to_dict())


def measurements(made: Study, model: str, runtime: str) -> list[Measurement]:
    """Every figure of the page, as a measurement."""
    clips = made.figures.clips
    found = [measured("accuracy", made.figures.accuracy, "", model, runtime, clips, detail="clips as recorded")]
    conditions: list[tuple[str, Shares]] = [("as recorded", Shares.of(made.figures))]
    conditions += [(f"{snr:g} dB SNR", shares) for snr, shares in made.by_snr.items() if snr is not None]
    conditions += [(f"{gain:+g} dB gain", shares) for gain, shares in made.by_gain.items() if gain]
    for condition, shares in conditions:
        for kind, row in shares.to_dict().items():
            metric = "recall of commands" if kind == "commands" else f"rejection of {kind}"
            found.append(measured(metric, row["right"], "", model, runtime, row["clips"], detail=condition))
    for label in made.thresholds:
        total = sum(made.figures.decided.get(label, {}).values())
        if total:
            found.append(measured("recall", made.figures.recall(label), "", model, runtime, total, detail=label))
    for kind, running in made.running.items():
        rate = running.alarms / running.hours
        hours = f"{running.hours:.3f} hours of {kind}"
        found.append(measured("false alarms", rate, "1/h", model, runtime, running.alarms, detail=hours))
    if made.times_s:
        for name, percent in (("median", 50), ("p95", 95)):
            value = float(np.percentile(made.times_s, percent))
            found.append(measured("time to command", value, "s", model, runtime, len(made.times_s), detail=name))
    return found


def _commands(page: Page, made: Study, say: Say) -> None:
    figures = made.figures
    rows = []
    for kind, (right, total) in (
        (say("commands"), Shares.of(figures).commands),
        (say("unknown words"), Shares.of(figures).unknown),
        (say("silence and noise"), Shares.of(figures).silence),
    ):
        if total:
            rows.append([kind, total, *_share(right, total)])
    right = round(figures.accuracy * figures.clips)
    rows.append([say("all clips"), figures.clips, *_share(right, figures.clips)])
    page.table([say("said"), say("clips"), say("right"), say("95 % interval")], rows, bold=[len(rows) - 1])
    page.text(say("A command is right if it is heard; unknown words, silence and noise if no command is."), soft=True)
    if made.as_unknown:
        page.text(say("Counted as unknown words: {names}").format(names=", ".join(made.as_unknown)), soft=True)
    page.heading(say("Which command, and what it is mistaken for"))
    page.picture(pictures.svg(matrix(figures, say)), say("Rows: what was said. Columns: what was decided."))
    rows = []
    for label in _labels(figures):
        counts = figures.decided[label]
        total = sum(counts.values())
        wrong = ", ".join(f"{_spoken(name, say)} {count}" for name, count in counts.most_common() if name != label)
        threshold = f"{made.thresholds[label]:g}" if label in made.thresholds else ""
        rows.append([_spoken(label, say), threshold, total, *_share(counts[label], total), wrong])
    head = ["said", "threshold", "clips", "right", "95 % interval", "taken for"]
    page.table([say(each) for each in head], rows)
    worth = figures.reliability()
    if worth:
        page.heading(say("What confidence is worth"))
        rows = [[f"{confidence:.0%}", f"{right:.0%}", count] for confidence, right, count in worth]
        page.table([say("confidence, on average"), say("of these right"), say("commands reported")], rows)


def _running(page: Page, made: Study, say: Say) -> None:
    if not made.running:
        return
    page.heading(say("Misses against false alarms"))
    misses = 1 - _ratio(*Shares.of(made.figures).commands)
    page.picture(
        pictures.svg(det_picture(made.running, misses, say)),
        say(
            "Each curve moves all thresholds together; the points are the thresholds as they are, with 95 % intervals."
        ),
    )
    rows = []
    for kind, running in made.running.items():
        low, high = running.interval_per_hour
        rate = running.alarms / running.hours
        rows.append([say(kind), f"{running.hours:.2f}", running.alarms, f"{rate:.2f}", f"{low:.2f} – {high:.2f}"])
    page.table([say(each) for each in ("heard in", "hours", "false alarms", "an hour", "95 % interval")], rows)
    page.text(say("Every command in these recordings counts, words that are truly said among them too."), soft=True)


def _conditions(page: Page, made: Study, say: Say) -> None:
    page.heading(say("In noise, and at other levels"))
    page.picture(pictures.svg(conditions_picture(made, say)))
    head = [say(each) for each in ("commands", "unknown words", "silence and noise")]

    def row(name: str, shares: Shares) -> list[str]:
        kinds = (shares.commands, shares.unknown, shares.silence)
        return [name, *("–" if not total else f"{right / total:.1%}" for right, total in kinds)]

    rows = [row(say("clean") if snr is None else f"{snr:g} dB", shares) for snr, shares in made.by_snr.items()]
    page.table([say("signal to noise"), *head], rows)
    page.text(
        say("Noise: cut from the recordings of --noise.") if made.noise_recorded else say("Noise: pink."), soft=True
    )
    page.table(
        [say("gain"), *head],
        [row(f"{gain:+g} dB" if gain else "0 dB", shares) for gain, shares in made.by_gain.items()],
    )


def _times(page: Page, made: Study, say: Say) -> None:
    if not made.times_s:
        return
    page.heading(say("When the command comes"))
    page.picture(
        pictures.svg(times_picture(made.times_s, say)),
        say("From the end of the spoken word, by its energy, to the event, in a live stream; to 50 ms."),
    )


def _near(page: Page, made: Study, folder: Path, say: Say) -> None:
    titles = {
        MISSED: "Missed by little: said, and not sure enough",
        ALMOST: "Almost heard: not said, and nearly sure enough",
        ALARM: "Heard, and not said",
    }
    for kind, title in titles.items():
        entries = [near for near in made.near if near.kind == kind]
        if not entries:
            continue
        page.heading(say(title))
        for near in entries:
            line = say("{command} at {confidence} (threshold {threshold}), {seconds} s into {recording}").format(
                command=near.event.name,
                confidence=f"{near.event.confidence:.2f}",
                threshold=f"{near.threshold:.2f}",
                seconds=f"{near.event.start_s:.2f}",
                recording=near.recording,
            )
            page.sound((folder / near.clip).read_bytes(), line)


# Pictures


def matrix(figures: Evaluation, say: Say) -> Figure:
    """Share of each label's clips (rows) that were decided as each (columns), darker for more; numbers where wrong."""
    rows = _labels(figures)
    columns = sorted({name for counts in figures.decided.values() for name in counts} | set(rows), key=_order)
    counts = np.array([[figures.decided[row][column] for column in columns] for row in rows])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(max(0.36 * len(columns) + 1.8, 4.0), 12.0)
    made, (axes,) = pictures.figure(size, max(size * len(rows) / max(len(columns), 1), 2.2))
    axes.imshow(shares**0.5, cmap="Blues", vmin=0, vmax=1, aspect="auto")  # the root: few mistakes must be seen
    small: Any = {"fontsize": 9 if len(columns) <= NUMBERED_LABELS else 6}
    axes.set_xticks(range(len(columns)), [_spoken(name, say) for name in columns], rotation=60, ha="right", **small)
    axes.set_yticks(range(len(rows)), [_spoken(name, say) for name in rows], **small)
    if len(columns) <= NUMBERED_LABELS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            dark = shares[row, column] > 0.35
            axes.text(
                column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color="w" if dark else "k"
            )
    axes.grid(False)
    axes.set_xlabel(say("decided"))
    axes.set_ylabel(say("said"))
    right, total = Shares.of(figures).commands
    pictures.title(axes, say("{share} of the commands are heard right").format(share=f"{_ratio(right, total):.1%}"))
    return made


def det_picture(running: dict[str, Running], misses: float, say: Say) -> Figure:
    """Misses against false alarms an hour: a line for each kind of recording, a point for the thresholds as set."""
    made, (axes,) = pictures.figure()
    lowest = []
    for color, (kind, each) in zip(pictures.COLORS, running.items(), strict=False):
        floor = 0.5 / each.hours  # where none was heard
        lowest.append(floor)
        rates = [max(point.alarms / each.hours, floor) for point in each.curve]
        axes.plot(
            rates, [100 * point.misses for point in each.curve], color=color, label=say(kind), drawstyle="steps-post"
        )
        low, high = (max(bound, floor) for bound in each.interval_per_hour)
        rate = max(each.alarms / each.hours, floor)
        axes.errorbar(
            [rate], [100 * misses], xerr=[[rate - min(low, rate)], [high - rate]], fmt="o", color=color, capsize=4
        )
    axes.set_xscale("log")
    axes.set_xlim(min(lowest) * 0.8, None)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, min(max(250 * misses, 10), 100))
    axes.set_xlabel(say("false alarms an hour (leftmost: none heard)"))
    axes.set_ylabel(say("commands missed, %"))
    axes.legend(frameon=False)
    first = next(iter(running))
    rate = running[first].alarms / running[first].hours
    pictures.title(
        axes,
        say("{misses} missed at {rate} false alarms an hour: {kind}").format(
            misses=f"{misses:.1%}", rate=f"{rate:.1f}", kind=say(first)
        ),
    )
    return made


def conditions_picture(made: Study, say: Say) -> Figure:
    """Recall of commands against the SNR and against the gain, with 95 % intervals."""
    drawn, (left, right) = pictures.figure(8.0, 3.4, 1, 2)
    snrs = [(say("clean") if snr is None else f"{snr:g}", shares) for snr, shares in made.by_snr.items()]
    gains = [(f"{gain:+g}" if gain else "0", shares) for gain, shares in made.by_gain.items()]
    for axes, points, name in ((left, snrs, say("signal to noise, dB")), (right, gains, say("gain, dB"))):
        shares = [100 * _ratio(*each.commands) for _, each in points]
        bounds = np.array([[100 * bound for bound in wilson(*each.commands)] for _, each in points])
        error = np.abs(bounds.T - shares)
        axes.errorbar(range(len(points)), shares, yerr=error, fmt="o-", capsize=4, color=pictures.COLORS[1])
        axes.set_xticks(range(len(points)), [label for label, _ in points])
        axes.set_xlabel(name)
        axes.set_ylim(min(90.0, float(bounds.min()) - 2), 100.5)
    left.set_ylabel(say("commands heard right, %"))
    worst = made.by_snr[min(snr for snr in made.by_snr if snr is not None)]
    pictures.title(left, say("{share} at 0 dB").format(share=f"{_ratio(*worst.commands):.0%}"))
    quiet = made.by_gain[min(made.by_gain)]
    pictures.title(
        right, say("{share} at {gain} dB").format(share=f"{_ratio(*quiet.commands):.0%}", gain=f"{min(made.by_gain):g}")
    )
    return drawn


def times_picture(times_s: Sequence[float], say: Say) -> Figure:
    """How many commands came how long after the end of their words."""
    made, (axes,) = pictures.figure(8.0, 3.2)
    milliseconds = 1000 * np.array(times_s)
    median, p95 = np.percentile(milliseconds, [50, 95])
    first, last = np.floor(milliseconds.min() / 50) * 50, np.ceil(milliseconds.max() / 50) * 50 + 50
    axes.hist(milliseconds, bins=np.arange(first, last + 1, 50).tolist(), color=pictures.COLORS[1])
    axes.axvline(float(median), color=pictures.COLORS[0], linestyle="--")
    axes.set_xlabel(say("ms after the end of the word"))
    axes.set_ylabel(say("clips"))
    pictures.title(
        axes,
        say("Half of the commands come within {median} ms, 95 % within {p95} ms").format(
            median=f"{median:.0f}", p95=f"{p95:.0f}"
        ),
    )
    return made


def _labels(figures: Evaluation) -> list[str]:
    return sorted(figures.decided, key=_order)


def _order(label: str) -> tuple[bool, str]:
    return label in (UNKNOWN, SILENCE), label


def _spoken(label: str, say: Say) -> str:
    names = {UNKNOWN: "(unknown)", SILENCE: "(silence)"}
    return say(names[label]) if label in names else label


def _ratio(right: int, total: int) -> float:
    return right / max(total, 1)


def _share(right: int, total: int) -> list[str]:
    low, high = wilson(right, total)
    return [f"{_ratio(right, total):.1%}", f"{low:.1%} – {high:.1%}"]
