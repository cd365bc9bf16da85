"""Commands that are known from a few recordings: what the encoder said while they were said, frame by frame.

A template is what the last block says during one recording. How alike what it says now is, is found by dynamic time
warping (Sakoe & Chiba 1978), in which a path may begin anywhere; a command is as alike as the mean of its best
templates.
`engine/src/templates.c` is the same in C, frame by frame; here all of many sounds at once, for choosing thresholds.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kouling.checkpoint import ModelInfo
from kouling.config import to_dict

LATELY = 7  # frames in which the ends of a command's templates count as one; TEMPLATES_LATELY
BEST = 3  # templates whose likeness a command's is the mean of; TEMPLATES_BEST
LINGER = 0.1  # price of a frame more, and of a row left out
TAIL_S = 0.25  # at the end of a template, behind its sound: the encoder is not done with it sooner
MOST_ROWS = 400
KEYS = ("model", "encoder", "recordings")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Templates:
    """The templates of one command, for one encoder."""

    model: str  # for the reader
    encoder: str  # `encoder_key` of the model
    recordings: tuple[Floats, ...]  # (rows, width + 1) each: likeness = row[:-1] @ hidden + row[-1]

    def to_table(self) -> dict[str, Any]:
        """As a command set has it."""
        return {"model": self.model, "encoder": self.encoder, "recordings": [*map(_written, self.recordings)]}

    @staticmethod
    def of_table(table: Any) -> Templates:
        """Raises: ValueError for anything that `to_table` does not write."""
        if not isinstance(table, Mapping) or set(table) != set(KEYS):
            raise ValueError(f"enrolled is no table of {', '.join(KEYS)}; write it with kouling enrol")
        texts = table["recordings"]
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError("enrolled.recordings is no list of strings; write it with kouling enrol")
        rows = tuple(map(_read, texts))
        if len({each.shape[1] for each in rows}) != 1:
            raise ValueError("enrolled.recordings are of different encoders; write them with kouling enrol")
        return Templates(str(table["model"]), str(table["encoder"]), rows)


def encoder_key(info: ModelInfo) -> str:
    """Which encoder a model has: by its origin, so that commands and thresholds may change. 8 hexadecimal digits."""
    origin = {key: value for key, value in info.provenance.items() if key != "taught"}
    text = json.dumps([info.name, to_dict(info.config), origin], sort_keys=True, default=str)
    return f"{zlib.crc32(text.encode()):08x}"


def check(info: ModelInfo, name: str, templates: Templates) -> None:
    """Raises: ValueError where a command was enrolled with another model."""
    if templates.encoder != encoder_key(info):
        raise ValueError(
            f"command {name!r} was enrolled with the model {templates.model!r}, of another encoder than "
            f"{info.name!r}; enrol it again with this one"
        )


def likeness(sounds: Floats, template: Floats) -> Floats:
    """sounds: (B, N, width) of B sounds. template: (rows, width + 1) -> (B, N): of the best path that ends at each
    frame, the mean of its rows."""
    rows = len(template)
    alike = sounds @ template[:, :-1].T + template[:, -1]
    path = np.full((len(sounds), rows), -1e9, dtype=np.float32)
    found = np.empty(sounds.shape[:2], dtype=np.float32)
    for frame in range(sounds.shape[1]):
        now = alike[:, frame]
        moved = now.copy()
        moved[:, 1:] += path[:, :-1]
        moved[:, 2:] = np.maximum(moved[:, 2:], path[:, :-2] - LINGER + now[:, 2:])
        found[:, frame] = moved[:, -1] / rows  # one that lingers at the last row has ended before
        path = np.maximum(moved, path - LINGER)
    return found


def likeness_of(sounds: Floats, templates: Sequence[Floats]) -> Floats:
    """(B, N): of a command with these templates."""
    each = np.stack([_lately(likeness(sounds, template)) for template in templates])
    best: Floats = np.sort(each, axis=0)[-BEST:].mean(axis=0)
    return best


def _lately(values: Floats) -> Floats:
    """The largest of the last LATELY frames, of each frame."""
    before = np.full((len(values), LATELY - 1), -1e9, dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([before, values], axis=1), LATELY, axis=1)
    largest: Floats = windows.max(axis=-1)
    return largest


def _written(rows: Floats) -> str:
    head = struct.pack("<2H", *rows.shape)
    return base64.b64encode(head + rows.astype("<f2").tobytes()).decode()


def _read(text: str) -> Floats:
    try:
        data = base64.b64decode(text, validate=True)
        rows, columns = struct.unpack_from("<2H", data)
        values = np.frombuffer(data, dtype="<f2", offset=4).reshape(rows, columns).astype(np.float32)
    except (binascii.Error, struct.error, ValueError):
        raise ValueError("enrolled.recordings are damaged; write them with kouling enrol") from None
    if not 1 <= rows <= MOST_ROWS or columns < 2 or not np.isfinite(values).all():
        raise ValueError("enrolled.recordings are damaged; write them with kouling enrol")
    return values
