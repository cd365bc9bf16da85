"""The labels of reports in Chinese. English is what the code says; a label without a translation is a mistake."""

from __future__ import annotations

from collections.abc import Callable

LANGUAGES = ("en", "zh")
Say = Callable[[str], str]

CHINESE: dict[str, str] = {
    "model": "模型",
    "runtime": "运行时",
    "total": "总计",
    "bytes": "字节",
    "frames": "帧",
    "step": "步",
}


def speaker(lang: str) -> Say:
    """A function that says a label in that language. Raises: ValueError for a language that there is none of, KeyError
    for a label that nobody translated."""
    if lang not in LANGUAGES:
        raise ValueError(f"--lang {lang}; allowed: {', '.join(LANGUAGES)}")
    return (lambda label: label) if lang == "en" else CHINESE.__getitem__
