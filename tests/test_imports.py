"""Imports run one way (DESIGN.md, section 3), and recognition needs neither PyTorch nor any extra."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import kouling

SOURCE = Path(kouling.__file__).parent

# The files and folders of the package, and what each may import of the others. Core first, bottom-up.
GRAMMAR = {"spoken_numbers", "slot_types", "phrases", "templates", "grammar", "word_graph"}
CORE = GRAMMAR | {"config", "audio", "features", "encoder", "commands"}
CORE |= {"graph_search", "decoder", "checkpoint", "recognizer", "rhino"}
ALLOWED: dict[str, set[str]] = {
    "config": set(),
    "audio": {"config"},
    "features": {"config", "audio"},
    "encoder": {"config"},  # the one core file with PyTorch: no other core file imports it
    "spoken_numbers": set(),
    "phrases": set(),
    "slot_types": {"spoken_numbers", "phrases"},
    "templates": {"config", "checkpoint"},  # they are for one encoder
    "grammar": {"spoken_numbers", "slot_types", "phrases", "templates"},
    "word_graph": {"spoken_numbers", "slot_types", "phrases"},
    "commands": GRAMMAR | {"config", "audio", "features"},
    "rhino": {"spoken_numbers", "slot_types", "phrases", "grammar"},
    "graph_search": {"commands", "slot_types", "word_graph"},
    "decoder": {"config", "audio", "features", "commands", "graph_search"},
    "checkpoint": {"config", "audio", "features"},  # readable without knowing what can be said
    "recognizer": CORE - {"encoder"},
    "measure": CORE | {"deploy", "__init__"},  # every runtime is measured; __init__: the version
    "deploy": CORE | {"_engine"},  # the C engine, which may be missing
    "train": CORE | {"measure", "deploy"},  # deploy, because a run ends with the export of what it trained
    "compress": CORE | {"measure", "deploy", "train"},
    "teach": CORE | {"measure", "deploy", "train", "compress"},
    "show": CORE - {"encoder"} | {"measure", "teach"},  # what the command line prints
    "cli": CORE | {"measure", "deploy", "train", "compress", "teach", "show", "__init__"},  # __init__: the version
    "__init__": CORE - {"encoder"},
    "__main__": {"cli"},
}
# Allowed besides, but only inside a function: at the top it would make a circle.
ALLOWED_INSIDE_FUNCTIONS: dict[str, set[str]] = {
    "recognizer": {"deploy"},  # `load` makes the runner that fits the model's file
}
# Not at the top of a file of cli/: each command imports what it needs when it runs.
HEAVY = {"encoder", "measure", "deploy", "train", "compress", "teach"}
# Packages of the extras: a plain `pip install kouling` has none of them.
OPTIONAL = {"torch", "scipy", "pyroomacoustics", "matplotlib", "onnx", "onnxscript", "onnxruntime", "sounddevice"}
FILES = sorted(SOURCE.rglob("*.py"))


def part_of(module: str) -> str:
    """`kouling.train.loop` -> `train`; `kouling.audio.read` -> `audio`; `kouling.Recognizer` -> `__init__`."""
    first = module.split(".")[1] if "." in module else "__init__"
    return first if (SOURCE / first).is_dir() or list(SOURCE.glob(f"{first}.py*")) else "__init__"


def own_part(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imports(tree: ast.AST, package: str, inside: bool = False) -> Iterator[tuple[str, bool, int]]:
    """(module or name imported, whether inside a function, line) of each import in a file of `package`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            ancestors = package.split(".")
            base = ".".join(ancestors[: len(ancestors) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield from ((f"{module}.{alias.name}", inside, node.lineno) for alias in node.names)
        else:
            yield from imports(node, package, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def imports_of(path: Path) -> list[tuple[str, bool, int]]:
    package = ".".join(["kouling", *path.parent.relative_to(SOURCE).parts])
    return list(imports(ast.parse(path.read_text(encoding="utf-8")), package))


def test_every_part_of_the_package_has_its_rule() -> None:
    assert {own_part(path) for path in FILES} - set(ALLOWED) == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_one_way(path: Path) -> None:
    own = own_part(path)
    for module, inside, line in imports_of(path):
        allowed = ALLOWED[own] | {own} | (ALLOWED_INSIDE_FUNCTIONS.get(own, set()) if inside else set())
        if module.split(".")[0] == "kouling":
            assert part_of(module) in allowed, f"{path}:{line}: {own} must not import {module}"


def test_the_command_line_imports_nothing_heavy_at_its_top() -> None:
    files = [path for path in FILES if own_part(path) == "cli"]
    modules = [module for path in files for module, inside, _ in imports_of(path) if not inside]
    assert [module for module in modules if module.startswith("kouling") and part_of(module) in HEAVY] == []
    assert [module for module in modules if module.split(".")[0] in OPTIONAL] == []


@pytest.mark.parametrize("module", ["kouling", "kouling.recognizer", "kouling.cli", "kouling.checkpoint"])
def test_importing_loads_no_optional_package(module: str) -> None:
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    loaded = set(json.loads(answer.stdout))
    assert module in loaded
    assert sorted(loaded & (OPTIONAL | {"kouling.encoder"})) == []


def test_all_names_exactly_what_is_public() -> None:
    public = {
        name
        for name, value in vars(kouling).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert public == set(kouling.__all__)
    assert len(kouling.__all__) == len(set(kouling.__all__))
    assert list(kouling.__all__) == sorted(kouling.__all__)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from kouling import checkpoint, load", [("checkpoint", False), ("__init__", False)]),
        ("from ..encoder import Encoder", [("encoder", False)]),
        ("import kouling\nfrom . import loss", [("__init__", False), ("train", False)]),
        ("def f():\n    import kouling.deploy.step", [("deploy", True)]),
        ("if True:\n    class A:\n        from kouling.audio import read", [("audio", False)]),
    ],
)
def test_the_reader_of_imports_understands_every_form(text: str, expected: list[tuple[str, bool]]) -> None:
    found = imports(ast.parse(text), "kouling.train")
    assert [(part_of(module), inside) for module, inside, _ in found] == expected
