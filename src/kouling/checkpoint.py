"""A trained model on disk: one safetensors file holding the weights, and beside them, as metadata, everything needed to
build, run and trust it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kouling import config as configuration
from kouling.config import Config

FORMAT_VERSION = 1


@dataclass(frozen=True)
class ModelInfo:
    """What a model is, without its weights. The same text lies in the checkpoint and in every exported form."""

    name: str
    language: str
    config: Config
    units: tuple[str, ...]  # index 0 blank, 1 unknown
    decoder: Mapping[str, Any] = field(default_factory=dict)  # calibrated settings, see decoder.DecoderConfig
    provenance: Mapping[str, Any] = field(default_factory=dict)  # recipe, data, commit, figures
    commands: Mapping[str, Any] = field(default_factory=dict)  # the set it was taught, as its TOML file has it; or none

    def to_json(self) -> str:
        table = {
            "format": FORMAT_VERSION,
            "name": self.name,
            "language": self.language,
            "config": configuration.to_dict(self.config),
            "units": list(self.units),
            "decoder": dict(self.decoder),
            "provenance": dict(self.provenance),
        }
        if self.commands:
            table["commands"] = dict(self.commands)
        return json.dumps(table, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> ModelInfo:
        """Raises: ValueError where the text is not a description of a model, or one of a newer format."""
        try:
            table = json.loads(text)
            if table["format"] > FORMAT_VERSION:
                raise ValueError(
                    f"format {table['format']} is newer than this kouling reads ({FORMAT_VERSION}); upgrade"
                )
            return ModelInfo(
                table["name"],
                table["language"],
                configuration.from_dict(table["config"]),
                tuple(table["units"]),
                table["decoder"],
                table["provenance"],
                table.get("commands", {}),
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"no description of a kouling model ({type(error).__name__}: {error})") from None


def save(path: Path, info: ModelInfo, weights: Mapping[str, NDArray[Any]]) -> None:
    """Write under a temporary name, then rename: an interrupted write leaves the old file. Raises: OSError."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        save_file({k: np.ascontiguousarray(v) for k, v in weights.items()}, temporary, {"kouling": info.to_json()})
        temporary.chmod(0o644)  # safetensors makes it readable for its owner alone
        os.replace(temporary, path)
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(f"{path}: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """A file that appears whole or not at all. Raises: OSError where it cannot be written."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> tuple[ModelInfo, dict[str, NDArray[Any]]]:
    """Raises: ValueError, one line, where the file is no checkpoint, truncated or corrupt; FileNotFoundError."""
    return _open(path, lambda file: {key: file.get_tensor(key) for key in file.keys()})


def load_info(path: Path) -> ModelInfo:
    """What a checkpoint is, its weights left unread. Raises: as `load`."""
    return _open(path, lambda file: {})[0]


def _open(path: Path, read: Callable[[Any], dict[str, NDArray[Any]]]) -> tuple[ModelInfo, dict[str, NDArray[Any]]]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            if "kouling" not in metadata:
                raise ValueError("a safetensors file, but not one of kouling")
            return ModelInfo.from_json(metadata["kouling"]), read(file)
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path}: not a usable checkpoint: {error}") from None
