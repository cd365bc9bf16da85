"""C programs built with the engine's sources and sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[2] / "engine"
FLAGS = ["-std=c11", "-O1", "-g", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-D_DEFAULT_SOURCE"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
INCLUDES = [f"-I{ENGINE}", f"-I{ENGINE / 'src'}"]


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """sanitized(name, *sources, flags=()): the program, of those sources in `engine/` and the engine's."""
    folder = tmp_path_factory.mktemp("sanitized")
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler, cc")
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    trial: list[str | Path] = ["cc", *SANITIZERS, "-o", folder / "empty", folder / "empty.c"]
    if subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("needs the sanitizers of cc: libasan and libubsan")

    def build(name: str, *sources: str, flags: tuple[str, ...] = ()) -> Path:
        files = [*(ENGINE / source for source in sources), *sorted((ENGINE / "src").glob("*.c"))]
        command: list[str | Path] = ["cc", *FLAGS, *SANITIZERS, *INCLUDES, *flags, "-o", folder / name, *files, "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return folder / name

    return build


@pytest.fixture(scope="session")
def corpus() -> Path:
    return ENGINE / "fuzz" / "corpus"
