"""`make live`: how the engine holds out. Thousands of live streams at once, and the time of a step over an hour.

Writes live.json, live.md and live.png into build/bench. LIVE_STREAMS (2000) and LIVE_SECONDS (30) in the environment
change what is tried. All of `kouling_accept` is timed: features, encoder and decoder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench import workers
from bench.__main__ import machine
from kouling import audio, recognizer

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "build" / "bench"
HOUR_MODELS = ("en-base", "en-small")
HOUR_S = 3600
PAGE = """# Many streams, and an hour

```
make live
cp build/bench/live.md build/bench/live.png docs/    # to make this page anew
```

{lines}

![Latency and time](live.png)

Left: every stream is a talker of its own, who begins at a moment of his own; the samples of a step are due when a
microphone would have given the last of them, and the latency is from then until they are heard. A stream keeps up while
it is below the length of a step. Right: one stream, as fast as it is worked on; the median and the 95th percentile of
the steps in every ten seconds of audio. Audio: the English recordings of `examples/`, again and again.
"""


def run(name: str, *arguments: Any, core: int | None = None) -> dict[str, Any]:
    """What a program of ours prints."""
    program = workers.compile_program(name, OUTPUT / "programs")
    pinned = None if core is None else workers.pin(core)
    done = subprocess.run([program, *map(str, arguments)], check=True, stdout=subprocess.PIPE, preexec_fn=pinned)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def lines(streams: dict[str, Any], hours: dict[str, dict[str, Any]]) -> str:
    late = {share: streams["latency_us"][round(10 * share)] / 1000 for share in (50, 99, 99.9, 100)}
    told = ", ".join(f"{share:g} % within {value:.2f} ms" for share, value in late.items())
    where = f"on {streams['threads']} cores of {machine(0)['cpu']} for {streams['seconds']:g} s"
    text = [
        f"- {streams['streams']:,} live streams of en-small {where}: "
        f"{streams['steps']:,} steps of {streams['period_ms']:g} ms: {told}. Cores busy {streams['busy']:.0%}."
    ]
    for model, hour in hours.items():
        first, last = hour["median_us"][1], np.median(hour["median_us"][-6:])
        text.append(
            f"- {model}: a step takes {first:.1f} µs between 10 and 20 s, {hour['median_us'][0]:.1f} µs before, "
            f"{last:.1f} µs in the last minute of {len(hour['median_us']) * hour['window_s'] // 60} (medians)."
        )
    return "\n".join(text)


def draw(streams: dict[str, Any], hours: dict[str, dict[str, Any]], output: Path) -> None:
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(np.array(streams["latency_us"]) / 1000, np.linspace(0, 100, 1001), color="#c2410c", linewidth=2)
    left.axvline(streams["period_ms"], color="black", linestyle=":", label=f"a step, {streams['period_ms']:g} ms")
    left.set(xscale="log", xlabel="latency, ms", ylabel="% of steps within")
    left.set_title(f"{streams['streams']:,} live streams of en-small, {streams['threads']} cores", loc="left")
    left.legend(loc="lower right")
    for (model, hour), color in zip(hours.items(), ("#2563eb", "#c2410c"), strict=True):
        minutes = np.arange(1, len(hour["median_us"]) + 1) * hour["window_s"] / 60
        right.plot(minutes, hour["median_us"], color=color, label=model)
        right.fill_between(minutes, hour["median_us"], hour["p95_us"], color=color, alpha=0.25, linewidth=0)
    right.set(ylim=(0, None), xlabel="minutes since the start", ylabel="µs a step; shade: up to p95")
    right.set_title("Time of a step over an hour of audio", loc="left")
    right.legend(loc="center right")
    figure.savefig(output, dpi=110)


def main() -> int:
    (OUTPUT / "programs").mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    sound = OUTPUT / "live.pcm"
    np.concatenate([audio.read(path) for path in sorted((ROOT / "examples").glob("en-*.ogg"))]).tofile(sound)
    models = {model: recognizer.MODELS / model / recognizer.ENGINE_FILE for model in HOUR_MODELS}
    hours = {model: run("hour", path, sound, HOUR_S, core=cores[-1]) for model, path in models.items()}
    wanted, seconds = os.environ.get("LIVE_STREAMS", "2000"), os.environ.get("LIVE_SECONDS", "30")
    streams = run("streams", models["en-small"], sound, wanted, min(len(cores), 2), seconds)
    text = lines(streams, hours)
    (OUTPUT / "live.json").write_text(json.dumps({"streams": streams, "hours": hours}) + "\n")
    (OUTPUT / "live.md").write_text(PAGE.format(lines=text))
    draw(streams, hours, OUTPUT / "live.png")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
