"""Speech made from text, in many voices, by the synthesisers that are installed: espeak-ng, flite, festival, SVOX Pico,
Piper.

A backend is a class with what `Backend` asks for, and its place in `BACKENDS`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from kouling.checkpoint import write_whole

TIMEOUT_S = 60.0
NATURAL_WORDS_PER_MINUTE = 170
# Voices of espeak-ng that pass for people: those that whisper, croak or are robots are left out.
ESPEAK_VARIANTS = (
    *("", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt2", "klatt4"),
    *("Alex", "Alicia", "Andrea", "Andy", "Annie", "Gene", "Hugo", "Lee", "Marco", "Mario", "Michael", "Mike"),
    *("adam", "anika", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "john"),
    *("linda", "max", "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro"),
    *("shelby", "steph", "steph2", "travis", "victor", "zac"),
)
ESPEAK_ACCENTS = {
    "en": ("en-us", "en-us", "en-us", "en-gb", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan"),
    "zh": ("cmn-latn-pinyin",),
}


@dataclass(frozen=True)
class Voice:
    """One way to say something; see `draw`."""

    engine: str
    name: str
    words_per_minute: int
    pitch: int = 50  # 0 to 99, where the engine has one


class Backend(Protocol):
    """A synthesiser. To add one: this, and a line in `BACKENDS`."""

    install: str  # how to get it
    weight: float  # how often its voices are drawn beside others'

    def voices(self, language: str) -> Sequence[str]:
        """Those that are installed and speak `language`, a code as in "en"."""
        ...

    def command_line(self, text: str, voice: Voice, output: Path) -> list[str]:
        """What writes a WAV file. Text of an espeak-ng phoneme string, `[[...]]`, goes to no other engine."""
        ...


def pinyin(text: str) -> str:
    """Chinese characters as pinyin with tones in figures, "bei3 jing1": espeak-ng reads these better than characters.

    Raises: ValueError where the library for it is missing."""
    try:
        from pypinyin import Style, lazy_pinyin
    except ModuleNotFoundError:
        raise ValueError("Mandarin needs pypinyin; install with: pip install 'kouling[train]'") from None
    return " ".join(lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True))


class EspeakNg:
    install = "apt-get install espeak-ng"
    weight = 0.6

    def voices(self, language: str) -> Sequence[str]:
        if shutil.which("espeak-ng") is None:
            return ()
        accents = ESPEAK_ACCENTS.get(language, (language,))
        return [f"{accent}+{variant}".rstrip("+") for accent in accents for variant in ESPEAK_VARIANTS]

    def command_line(self, text: str, voice: Voice, output: Path) -> list[str]:
        speed, pitch = str(voice.words_per_minute), str(voice.pitch)
        text = pinyin(text) if voice.name.startswith(ESPEAK_ACCENTS["zh"]) else text
        return ["espeak-ng", "-v", voice.name, "-s", speed, "-p", pitch, "-w", str(output), "--", text]


class Flite:
    install = "apt-get install flite"
    weight = 0.35

    def voices(self, language: str) -> Sequence[str]:
        return ("slt", "slt", "kal16", "awb", "rms") if language == "en" and shutil.which("flite") else ()

    def command_line(self, text: str, voice: Voice, output: Path) -> list[str]:
        stretch = f"duration_stretch={NATURAL_WORDS_PER_MINUTE / voice.words_per_minute:.2f}"
        level = f"int_f0_target_mean={95 + voice.pitch}" if voice.name in ("rms", "awb", "kal16") else ""
        more = ["--setf", level] if level else []
        return ["flite", "-voice", voice.name, "--setf", stretch, *more, "-t", text, "-o", str(output)]


class Festival:
    install = "apt-get install festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts"
    weight = 0.05  # a second to start, and two of its three voices are flite's too
    folder = Path("/usr/share/festival/voices")

    def voices(self, language: str) -> Sequence[str]:
        if language != "en" or shutil.which("text2wave") is None:
            return ()
        return sorted(path.name for dialect in ("english", "us") for path in self.folder.glob(f"{dialect}/*_*"))

    def command_line(self, text: str, voice: Voice, output: Path) -> list[str]:
        stretch = f"(Parameter.set 'Duration_Stretch {NATURAL_WORDS_PER_MINUTE / voice.words_per_minute:.2f})"
        source = output.with_suffix(".txt")
        source.write_text(text, encoding="utf-8")
        return ["text2wave", "-eval", f"(voice_{voice.name})", "-eval", stretch, "-o", str(output), str(source)]


class Pico:
    """Android's voices until 2015, of two women; other pitches make other people of them."""

    install = "pip install 'kouling[voices]'"
    weight = 0.4

    def voices(self, language: str) -> Sequence[str]:
        known = ("en-US", "en-GB", "de-DE", "es-ES", "fr-FR", "it-IT")
        return [voice for voice in known if voice.startswith(f"{language}-")] if find_spec("ttspico") else []

    def command_line(self, text: str, voice: Voice, output: Path) -> list[str]:
        rate, pitch = 100 * voice.words_per_minute // NATURAL_WORDS_PER_MINUTE, 55 + voice.pitch
        program = str(Path(__file__).with_name("pico.py"))
        return [sys.executable, program, voice.name, str(rate), str(pitch), str(output), text]


class Piper:
    """Neural voices, files of which lie in ~/.local/share/piper or the folder that PIPER_VOICES names."""

    install = (
        "pip install piper-tts; python -m piper.download_voices --data-dir ~/.local/share/piper en_US-lessac-medium"
    )
    weight = 2.0  # they sound like people

    def voices(self, language: str) -> Sequence[str]:
        if shutil.which("piper") is None:
            return ()
        folder = Path(os.environ.get("PIPER_VOICES", Path.home() / ".local/share/piper"))
        return sorted(str(path) for path in folder.glob(f"**/{language}_*.onnx"))

    def command_line(self, text: str, voice: Voice, output: Path) -> list[str]:
        slower = f"{NATURAL_WORDS_PER_MINUTE / voice.words_per_minute:.2f}"
        return ["piper", "--model", voice.name, "--length-scale", slower, "--output-file", str(output), "--", text]


BACKENDS: dict[str, Backend] = {
    "espeak-ng": EspeakNg(),
    "flite": Flite(),
    "festival": Festival(),
    "pico": Pico(),
    "piper": Piper(),
}


Voices = Mapping[str, Sequence[str]]  # names, by engine


def installed(language: str, engines: Sequence[str] = tuple(BACKENDS)) -> Voices:
    """The voices there are for a language.

    Raises: ValueError for an engine that there is not, and where none has a voice, with how to install one."""
    for engine in engines:
        if engine not in BACKENDS:
            raise ValueError(f"no speech synthesiser {engine!r}; allowed: {', '.join(BACKENDS)}")
    found = {engine: tuple(BACKENDS[engine].voices(language)) for engine in engines}
    voices = {engine: names for engine, names in found.items() if names}
    if not voices:
        wanted = "; or ".join(BACKENDS[engine].install for engine in engines)
        raise ValueError(f"no speech synthesiser for language {language!r} is installed; install one: {wanted}")
    return voices


def draw(voices: Voices, rng: random.Random, phonemes: bool = False) -> Voice:
    """phonemes: of an engine that reads espeak-ng's `[[...]]`. Raises: ValueError where there is none."""
    if phonemes and "espeak-ng" not in voices:
        raise ValueError(f"only espeak-ng speaks phonemes; install it: {EspeakNg.install}")
    weights = [BACKENDS[engine].weight for engine in voices]
    engine = "espeak-ng" if phonemes else rng.choices(list(voices), weights)[0]
    return Voice(engine, rng.choice(voices[engine]), rng.randint(105, 225), rng.randint(10, 90))


def speak(text: str, voice: Voice, output: Path) -> bytes:
    """A WAV file of `text`; `output` is where it is written on the way. Raises: ValueError where the engine fails."""
    command = BACKENDS[voice.engine].command_line(text, voice, output)
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
        return output.read_bytes()
    except (subprocess.SubprocessError, OSError) as error:
        reason = getattr(error, "stderr", None) or str(error).encode()
        said = reason.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise ValueError(f"{voice.engine} cannot say {text!r} in voice {voice.name}: {said[-1]}") from None


def speak_all(texts: Sequence[tuple[str, str]], voices: Voices, seed: int) -> Iterator[tuple[str, str, io.BytesIO]]:
    """texts: (label, what is said), in drawn voices, two at a time -> (label, name, WAV file) in their order.

    Raises: ValueError where a synthesiser fails.
    """
    rng = random.Random(seed)
    drawn = [(label, text, draw(voices, rng, "[[" in text)) for label, text in texts]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:

        def said(number: int) -> bytes:
            return speak(drawn[number][1], drawn[number][2], Path(folder) / f"{number}.wav")

        for first in range(0, len(drawn), 64):  # in portions: not all WAV files at once in memory
            portion = range(first, min(first + 64, len(drawn)))
            for number, wav in zip(portion, pool.map(said, portion), strict=True):
                (Path(folder) / f"{number}.wav").unlink()
                label, _, voice = drawn[number]
                yield label, f"{label}/{number:05d}-{voice.engine}.wav", io.BytesIO(wav)


@dataclass(frozen=True)
class Texts:
    """What is to be spoken, as a file beside recordings: a source of a recipe whose path ends in `.json`."""

    texts: tuple[tuple[str, str, int], ...]  # label, what is said, in how many voices
    voices: Voices  # drawn from: with another one installed, other speech comes of the same texts
    seed: int = 0

    def save(self, folder: Path, name: str) -> Path:
        """The file, called by the name and by what is in it: who learns from it is not taken for who learnt before."""
        content = json.dumps(asdict(self), ensure_ascii=False, indent=0).encode()
        path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}.json"
        write_whole(path, content)
        return path

    @staticmethod
    def load(path: Path) -> Texts:
        """Raises: ValueError where the file is none that `save` wrote."""
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            texts = tuple((str(label), str(text), int(count)) for label, text, count in table["texts"])
            voices = {engine: tuple(map(str, names)) for engine, names in table["voices"].items()}
            return Texts(texts, voices, int(table["seed"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: no list of texts to be spoken ({type(error).__name__}: {error})") from None

    def speak(self) -> Iterator[tuple[str, str, io.BytesIO]]:
        """(label, name, WAV file) of each. Raises: as `speak_all`."""
        said = [(label, text) for label, text, voices in self.texts for _ in range(voices)]
        return speak_all(said, self.voices, self.seed)


def speak_list(words: list[str], voices_per_word: int, seed: int) -> Iterator[tuple[str, str, io.BytesIO]]:
    """(word, name, WAV file) of every word of a list in every drawn voice. Raises: as `speak_all` and `installed`."""
    return speak_all([(word, word) for word in words for _ in range(voices_per_word)], installed("en"), seed)
