"""One HTML page with tables and pictures, that needs no network: good on a phone, and printed."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kouling.checkpoint import write_whole
from kouling.measure import measurement
from kouling.measure.measurement import Measurement

STYLE = Path(__file__).with_name("page.css")


@dataclass
class Page:
    """Made from top to bottom; `write` puts `index.html` and `result.json` into a folder."""

    title: str
    lang: str = "en"
    measurements: list[Measurement] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str, soft: bool = False) -> None:
        self.parts.append(f"<p{' class=soft' if soft else ''}>{html.escape(text)}</p>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[Any]], bold: Sequence[int] = ()) -> None:
        """bold: indices of the rows that matter most. A cell that is a bool is shown as a tick or a cross."""
        top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        lines = [
            f"<tr{' class=bold' if index in bold else ''}>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>"
            for index, row in enumerate(rows)
        ]
        self.parts.append(
            f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        )

    def picture(self, svg: str, caption: str = "") -> None:
        self.parts.append(svg)
        if caption:
            self.text(caption, soft=True)

    def verdict(self, text: str, passed: bool) -> None:
        self.parts.append(f"<p class={'good' if passed else 'bad'}>{'✓' if passed else '✗'} {html.escape(text)}</p>")

    def sound(self, wav: bytes, caption: str) -> None:
        """A few seconds of 16-bit WAV to listen to, inside the page."""
        import base64

        data = base64.b64encode(wav).decode()
        self.parts.append(
            f'<p><audio controls preload=none src="data:audio/wav;base64,{data}"></audio> {html.escape(caption)}</p>'
        )

    def write(self, folder: Path, result: Any) -> Path:
        """-> the page. result: what `--json` prints, for `result.json` beside it. Raises: OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        made = f"{measurement.device()} · {measurement.commit()}"
        text = (
            f'<!doctype html>\n<html lang="{self.lang}"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title>"
            f"<style>{STYLE.read_text(encoding='utf-8')}</style></head><body>\n<h1>{html.escape(self.title)}</h1>\n"
            f"<p class=soft><code>{html.escape(measurement.command())}</code></p>\n"
            + "\n".join(self.parts)
            + f"\n<footer><p>{html.escape(made)}</p></footer></body></html>\n"
        )
        write_whole(folder / "index.html", text.encode())
        document = {"result": result, "measurements": [each.to_dict() for each in self.measurements]}
        write_whole(folder / "result.json", (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode())
        return folder / "index.html"


def _cell(cell: Any) -> str:
    if isinstance(cell, bool):
        return f"<span class={'good' if cell else 'bad'}>{'✓' if cell else '✗'}</span>"
    return html.escape(str(cell))
