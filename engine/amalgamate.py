"""Joins the engine into two files for other trees: `amalgamate.py DIR` writes kouling.c and kouling.h there.

Needs nothing but Python. Headers of ours go in once, where they are first included; the .inc each time. All but the
functions of kouling.h becomes static: what another file of a firmware calls `checksum` is none of our business.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ENGINE = Path(__file__).resolve().parent
INCLUDE = re.compile(r'#include "(.+)"\n')
# A function declared at the beginning of a line of a header. Its definition needs no `static` of its own (C11, 6.2.2).
PROTOTYPE = re.compile(r"^(?!typedef\b|static\b|KL_)(?=[a-z][\w *]*\([^;{}]*\);$)", re.MULTILINE)
LICENCE = "Copyright 2026 The kouling authors. SPDX-License-Identifier: Apache-2.0"
HEAD = """/* kouling {version}, {licence}
 *
 * Hears voice commands; kouling.h says how. Made of the files in engine/src by engine/amalgamate.py: edit those.
 * Build it with -ffp-contract=off, and every processor computes the same bits. */
#include "kouling.h"

#if defined(__GNUC__)
#define KL_OWN static __attribute__((unused)) /* some are for tests only */
#else
#define KL_OWN static
#endif
"""


def inlined(path: Path, seen: set[str]) -> str:
    """The file, and in place of the files that it includes themselves."""

    def instead(include: re.Match[str]) -> str:
        name = include[1]
        if name in seen:
            return ""
        if name.endswith(".h"):
            seen.add(name)
        return inlined(path.parent / name, seen)

    text = path.read_text(encoding="utf-8")
    if path.suffix == ".h":
        text = PROTOTYPE.sub("KL_OWN ", text)
    # A function, as a string would have its backslashes read.
    return f"\n/* ---- {path.name} ---- */\n\n" + INCLUDE.sub(instead, text).lstrip("\n")


def amalgamate(folder: Path) -> None:
    with open(ENGINE.parent / "pyproject.toml", "rb") as file:
        version = tomllib.load(file)["project"]["version"]
    seen = {"kouling.h"}
    parts = [inlined(path, seen) for path in sorted((ENGINE / "src").glob("*.c"))]
    text = re.sub(r"\n{3,}", "\n\n", HEAD.format(version=version, licence=LICENCE) + "".join(parts))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kouling.c").write_text(text, encoding="utf-8")
    header = (ENGINE / "kouling.h").read_text(encoding="utf-8")
    (folder / "kouling.h").write_text(f"/* {LICENCE} */\n{header}", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: amalgamate.py DIR")
    amalgamate(Path(sys.argv[1]))
