"""What a bundle tells the engineer who puts it on a device: README.md, and a parity test that needs no more than
Python's own library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kouling.checkpoint import write_whole
from kouling.deploy.frontend import FILE as FRONTEND
from kouling.deploy.graph import STATIC, Description, TensorSpec, Written
from kouling.deploy.parity import TOLERANCES, Parity
from kouling.recognizer import BUNDLE_FILE

PARITY = '''\
"""Compare what a device computed with what this export computes on a host. Needs only Python's own library.

Run the step on the device over golden/features.f32 (float32, frames after frames), from the state in state.bin, each
call with the state that the one before gave. Write all logits, or their log-softmax, as float32, little endian, into
one file, then:

    python parity.py MINE.f32
"""

import array
import math
import sys
from pathlib import Path

UNITS = {units}
ALIKE = 0.99  # of the encoder frames must have the same likeliest unit
LEAST_DB = {least_db:g}  # signal to noise of all log-probabilities: silence alone would be alike


def read(path):
    numbers = array.array("f")
    numbers.frombytes(Path(path).read_bytes())
    if sys.byteorder == "big":
        numbers.byteswap()
    return [log_softmax(numbers[at : at + UNITS]) for at in range(0, len(numbers), UNITS)]


def log_softmax(frame):
    most = max(frame)
    total = most + math.log(sum(math.exp(each - most) for each in frame))
    return [each - total for each in frame]


def likeliest(frame):
    return max(range(len(frame)), key=frame.__getitem__)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    mine, golden = read(sys.argv[1]), read(Path(__file__).parent / "golden" / "log_probs.f32")
    if len(mine) != len(golden):
        sys.exit(f"{{len(mine)}} encoder frames in {{sys.argv[1]}}; expected: {{len(golden)}}")
    alike = sum(likeliest(a) == likeliest(b) for a, b in zip(mine, golden)) / len(golden)
    worst = max(abs(x - y) for a, b in zip(mine, golden) for x, y in zip(a, b))
    signal = sum(y * y for b in golden for y in b)
    noise = sum((x - y) ** 2 for a, b in zip(mine, golden) for x, y in zip(a, b))
    snr_db = 10 * math.log10(signal / max(noise, 1e-30))
    print(f"{{alike:.2%}} of {{len(golden)}} frames alike, {{snr_db:.1f}} dB, largest difference {{worst:.3g}}")
    sys.exit(not (alike >= ALIKE and snr_db >= LEAST_DB))


main()
'''


def write(
    folder: Path,
    told: Description,
    written: Written,
    parity: Parity | None,
    estimate: str,
) -> None:
    """`README.md` and `parity.py` of a bundle. estimate: what an NPU's compiler says of a call, if anything."""
    write_whole(
        folder / "parity.py", PARITY.format(units=len(told.info.units), least_db=TOLERANCES[STATIC][0]).encode()
    )
    write_whole(folder / "README.md", page(told, written, parity, estimate).encode())


def page(told: Description, written: Written, parity: Parity | None, estimate: str) -> str:
    info, features = told.info, told.info.config.features
    encoder = info.config.encoder
    lookahead_ms = encoder.lookahead * features.frame_shift_ms
    lines = [
        f"# {info.name} for {told.target}, {told.scheme}",
        "",
        f"Hears {len(info.units) - 2} {info.language} words in 16 kHz audio, {told.frames} feature frames "
        f"({told.frames * features.frame_shift_ms} ms) a call, {lookahead_ms} ms of lookahead.",
        "",
        "## What lies here",
        "",
        f"- `{written.compiled or told.file}`: the step for the device."
        + (f" `{told.file}` is the same before it was compiled: it runs on a host." if written.compiled else ""),
        f"- `{BUNDLE_FILE}`: names, shapes, types and scales of its inputs and outputs; the model's configuration.",
        f"- `{told.initial}`: the state with which a stream begins, tensor after tensor in the order below.",
        f"- `{FRONTEND}`: features and decoder for kouling's C engine (`kouling_features`, `kouling_decode`), without "
        "encoder. `units.txt`: the words, index 0 is blank.",
        "- `golden/`: samples, their features, and the log-probabilities that this export computes of them.",
        "- `parity.py`: compares what your device computes with those. `report.json`: operators, comparison, estimate.",
        "",
        "## The step",
        "",
        *_table("input", told.inputs),
        "",
        *_table("output", told.outputs),
        "",
        "A number q stands for scale * (q - zero point). "
        + (
            "Each state output goes in again as it is, byte for byte."
            if told.copied
            else "A state output whose scale is not that of its input is converted before it goes in again."
        ),
        "",
        "```",
        "state = state.bin",
        f"for every {told.frames} feature frames:",
        "    logits, state = step(features, state)",
        "    log_probs = log_softmax(logits)      # float; what kouling_decode and decoder.py take",
        "```",
        "",
        "## Features",
        "",
        f"Log-mel power of {features.frame_length_ms} ms Povey windows every {features.frame_shift_ms} ms, "
        f"{features.num_mels} mels from {features.low_hz:g} to {features.high_hz:g} Hz, pre-emphasis 0.97, no dither: "
        f"Kaldi's. Then max(x - {features.log_floor:g}, 0) / {features.log_scale:g}. In C: `kouling_features` on "
        f"`{FRONTEND}`. `golden/features.f32` holds those of `golden/samples.wav`, float32.",
        "",
        "## What runs where",
        "",
        *(f"- {each.on}: {each.count} {each.kind}" + (f": {each.why}" if each.why else "") for each in written.placed),
        "",
        *([f"{estimate}; nothing was run on an NPU.", ""] if estimate else []),
        "## Proof",
        "",
        parity.line + (". Passed." if parity.passed else ". FAILED: do not ship this.")
        if parity
        else "Not compared over a stream: a call is longer than a step. The golden vectors are those of one call.",
        "",
        f"Licence: {info.provenance.get('licence', 'see the card')}. Figures of the model: card.md.",
    ]
    return "\n".join(lines) + "\n"


def _table(what: str, specs: Sequence[TensorSpec]) -> list[str]:
    rows = [f"| {what} | shape | type | scale | zero point |", "|---|---|---|---|---|"]
    for spec in specs:
        shape = " x ".join(map(str, spec.shape))
        scale = f"{spec.scale:.9g} | {spec.zero_point}" if spec.scale else " | "
        rows.append(f"| `{spec.name}` | {shape} | {spec.dtype} | {scale} |")
    return rows
