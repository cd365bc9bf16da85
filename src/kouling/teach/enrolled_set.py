"""The command set that enrolled commands are written into; whatever else stands in it stays, comments too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from kouling.checkpoint import write_whole


def read(path: Path) -> Any:
    """The document, or an empty one where there is no file. Raises: ValueError for broken TOML."""
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no TOML: {error}") from None


def phrases(document: Any, name: str, replace: bool) -> list[str]:
    """What the set's other commands say. Raises: ValueError where a command has that name already."""
    entries = document.get("command", [])
    if not replace and any(entry.get("name") == name for entry in entries):
        raise ValueError(f"the set has a command {name!r} already; choose another name, or give --replace")
    return [phrase for entry in entries if entry.get("name") != name for phrase in entry.get("phrases", [])]


def write(path: Path, document: Any, name: str, spelled: Sequence[str], threshold: float) -> None:
    """The set with this command, in the place of one of that name or at the end. Raises: OSError."""
    entry = tomlkit.table()
    entry.add("name", name)
    listed = tomlkit.array()
    for phrase in spelled:
        listed.append(phrase)
    entry.add("phrases", listed.multiline(len(spelled) > 1))
    entry.add("threshold", threshold)
    if "command" not in document:
        document.add("command", tomlkit.aot())
    entries = document["command"]
    for number, other in enumerate(entries):
        if other.get("name") == name:
            entries[number] = entry
            break
    else:
        entries.append(entry)
    write_whole(path.resolve(), tomlkit.dumps(document).encode())
