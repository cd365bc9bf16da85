"""Make the background that `kouling teach` brings along: running speech, single words and noise in at most 10 MB.

    python recipes/background.py DATA src/kouling/teach/background.tar

Of running speech and noise it takes what recipes train on (`part = "train"`), so the rest stays for false-alarm figures;
of Speech Commands, an even pick of the words that are spoken alone.
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

import soundfile

from kouling.audio import SAMPLE_RATE_HZ, read
from kouling.measure.recordings import labelled
from kouling.train.data import name_hash

MOST_BYTES = 10_000_000
LEVEL = 0.98  # of libsndfile's Opus: about 11 kbit/s
WORDS_EACH = 30
# File, label in the pack, and which of its names by their hash: those below the first number are what recipes validate
# on, those from the second on did not find room.
SOURCES = (
    ("speech-librispeech.tar", "speech", 30, 75),
    ("speech-commonvoice.tar", "speech", 30, 75),
    ("noise.tar", "noise", 20, 60),
    ("gsc-train.tar", "words", 0, 100),
)
NOTICE = """Recordings in this archive, all re-encoded at about 11 kbit/s:

speech/librispeech-*   LibriSpeech (Panayotov, Chen, Povey, Khudanpur), CC BY 4.0, from LibriVox recordings
speech/commonvoice-*   Mozilla Common Voice, CC0
noise/*                ESC-10 (K. Piczak), CC BY 3.0 as the set; authors on Freesound
all others             Google Speech Commands (Pete Warden, Google), CC BY 4.0
"""


def main(data: Path, output: Path) -> None:
    temporary = output.with_suffix(".tmp")
    seconds: dict[str, float] = defaultdict(float)
    with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as pack:
        add(pack, "NOTICE", NOTICE.encode())
        for file, label, first, last in SOURCES:
            source = file.split(".")[0].split("-")[-1]
            taken: dict[str, int] = defaultdict(int)
            for number, (word, name, content) in enumerate(labelled(data / file)):
                if not first <= name_hash(name) % 100 < last or (label == "words" and taken[word] >= WORDS_EACH):
                    continue
                taken[word] += 1
                samples = read(content, name)
                seconds[label] += len(samples) / SAMPLE_RATE_HZ
                encoded = io.BytesIO()
                soundfile.write(encoded, samples, SAMPLE_RATE_HZ, format="OGG", subtype="OPUS", compression_level=LEVEL)
                name = f"{word}/{number:05d}.ogg" if label == "words" else f"{label}/{source}-{number:05d}.ogg"
                add(pack, name, encoded.getvalue())
    size = temporary.stat().st_size
    print(f"{size:,} bytes:", ", ".join(f"{label} {length / 3600:.2f} h" for label, length in seconds.items()))
    if size > MOST_BYTES:
        raise SystemExit(f"{temporary} has {size:,} bytes; allowed: {MOST_BYTES:,}")
    temporary.replace(output)


def add(pack: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    pack.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
