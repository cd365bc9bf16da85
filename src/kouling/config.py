"""Configuration: frozen dataclasses, the presets, and a strict reader and writer for TOML.

The names are those of the original configuration (`ORIGINAL_CONSTANTS` sets them side by side), so its numbers mean
the same here. Everything that follows from them (encoder frame rate, lookahead, receptive field) is derived, exactly.
"""

from __future__ import annotations

import ast
import math
import tomllib
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

Section = TypeVar("Section")


def exact_div(dividend: int, divisor: int) -> int:
    """`dividend / divisor`, refused where the result is not whole. Raises: ValueError."""
    if dividend % divisor:
        raise ValueError(f"{dividend} is not a multiple of {divisor}")
    return dividend // divisor


@dataclass(frozen=True)
class FeatureConfig:
    """Log-mel features; see `features.py` for the definition."""

    sample_rate_hz: int = 16000
    frame_shift_ms: int = 10
    frame_length_ms: int = 25
    num_mels: int = 64
    low_hz: float = 20.0
    high_hz: float = 7600.0
    log_floor: float = 5.0  # nats of mel power at int16 scale; below it lies the rounding noise of 16-bit audio
    log_scale: float = 5.0  # features are (log mel - log_floor) / log_scale, never negative; 0 is digital silence

    def __post_init__(self) -> None:
        if self.sample_rate_hz != 16000:
            raise ValueError(f"features.sample_rate_hz is {self.sample_rate_hz}; allowed: 16000")
        if self.frame_shift_ms != 10:
            raise ValueError(f"features.frame_shift_ms is {self.frame_shift_ms}; allowed: 10")
        if not self.frame_shift_ms <= self.frame_length_ms <= 32:
            raise ValueError(
                f"features.frame_length_ms is {self.frame_length_ms}; allowed: {self.frame_shift_ms} to 32"
            )
        if not 8 <= self.num_mels <= 128 or self.num_mels % 4:
            raise ValueError(f"features.num_mels is {self.num_mels}; allowed: multiples of 4 from 8 to 128")
        if not 0 <= self.low_hz < self.high_hz <= self.sample_rate_hz / 2:
            raise ValueError(
                f"features.low_hz and high_hz are {self.low_hz} and {self.high_hz}; "
                f"allowed: 0 <= low_hz < high_hz <= {self.sample_rate_hz // 2}"
            )
        if not 0 < self.log_scale < math.inf:
            raise ValueError(f"features.log_scale is {self.log_scale}; allowed: above 0, finite")
        if not math.isfinite(self.log_floor):
            raise ValueError(f"features.log_floor is {self.log_floor}; allowed: finite")

    @property
    def hop_samples(self) -> int:
        return exact_div(self.sample_rate_hz * self.frame_shift_ms, 1000)  # 160

    @property
    def window_samples(self) -> int:
        return exact_div(self.sample_rate_hz * self.frame_length_ms, 1000)  # 400


ATTENTION_KINDS = ("windowed", "local", "linear")
NORM_KINDS = ("layer", "batch")


@dataclass(frozen=True)
class BlockShape:
    """What is left of one Conformer block when some of it was pruned away; of the whole one, all."""

    heads: int
    head_size: int
    ffn_in: int  # inner width of the first feed-forward module
    ffn_out: int  # of the second
    channels: int  # of the convolution module

    @property
    def attention_width(self) -> int:
        """Width of queries, keys and values."""
        return self.heads * self.head_size


@dataclass(frozen=True)
class EncoderConfig:
    """Shape and time grid of the streaming Conformer. Sizes in frames are 10 ms feature frames, as in the original."""

    layers: int = 4
    attention_heads: int = 8
    hidden_size: int = 128
    conv_kernel_size: int = 31  # encoder frames
    ffn_expansion: int = 4  # inner width of the feed-forward modules over hidden_size
    stem_channels: int = 32
    stem_layers: int = 0  # residual convolutions over frequency in the stem
    subsampling: int = 5  # feature frames per encoder frame
    streaming_chunk_size: int = 10  # feature frames a step looks at: step + lookahead
    max_cached_frames: int = 100  # feature frames of left context of each attention layer
    streaming_step_size: int = 5  # new feature frames a step consumes
    # windowed: all of max_cached_frames; local: the last local_frames of them; linear: a sum over all the past that
    # fades, its size and cost that of no window at all.
    attention: str = "windowed"
    local_frames: int = 30
    # Of frames. layer: each by itself; batch: each channel by what training found, which costs a running model nothing
    # and leaves no operator that an NPU may lack.
    norm: str = "layer"
    # What pruning left, layer by layer; empty: everything. Two numbers a layer in layer_ffn, one for each module.
    layer_heads: list[int] = field(default_factory=list)
    layer_ffn: list[int] = field(default_factory=list)
    layer_channels: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("layers", "attention_heads", "hidden_size", "ffn_expansion", "stem_channels", "subsampling"):
            if getattr(self, name) < 1:
                raise ValueError(f"encoder.{name} is {getattr(self, name)}; allowed: 1 or more")
        if self.stem_layers < 0:
            raise ValueError(f"encoder.stem_layers is {self.stem_layers}; allowed: 0 or more")
        if self.hidden_size % self.attention_heads:
            below = self.hidden_size - self.hidden_size % self.attention_heads
            raise ValueError(
                f"encoder.hidden_size {self.hidden_size} is not a multiple of attention_heads {self.attention_heads}; "
                f"nearest allowed: {_either(below, below + self.attention_heads)}"
            )
        if self.conv_kernel_size < 2:
            raise ValueError(f"encoder.conv_kernel_size is {self.conv_kernel_size}; allowed: 2 or more")
        if self.streaming_step_size < 1 or self.streaming_step_size % self.subsampling:
            below = self.streaming_step_size - self.streaming_step_size % self.subsampling
            raise ValueError(
                f"encoder.streaming_step_size {self.streaming_step_size} is not a multiple of subsampling "
                f"{self.subsampling}; nearest allowed: {_either(below, below + self.subsampling)}"
            )
        if self.streaming_chunk_size < self.streaming_step_size:
            raise ValueError(
                f"encoder.streaming_chunk_size {self.streaming_chunk_size} is smaller than streaming_step_size "
                f"{self.streaming_step_size}; nearest allowed: {self.streaming_step_size}"
            )
        if self.max_cached_frames < self.subsampling:
            raise ValueError(
                f"encoder.max_cached_frames {self.max_cached_frames} is less than one encoder frame; "
                f"nearest allowed: {self.subsampling}"
            )
        if self.attention not in ATTENTION_KINDS:
            raise ValueError(f"encoder.attention is {self.attention!r}; allowed: {', '.join(ATTENTION_KINDS)}")
        if self.norm not in NORM_KINDS:
            raise ValueError(f"encoder.norm is {self.norm!r}; allowed: {', '.join(NORM_KINDS)}")
        if self.attention == "local" and not self.subsampling <= self.local_frames <= self.max_cached_frames:
            raise ValueError(
                f"encoder.local_frames is {self.local_frames}; allowed: {self.subsampling} to {self.max_cached_frames}"
            )
        for name, each, most in (
            ("layer_heads", 1, self.attention_heads),
            ("layer_ffn", 2, None),
            ("layer_channels", 1, None),
        ):
            numbers = getattr(self, name)
            if numbers and (
                len(numbers) != each * self.layers or min(numbers) < 1 or max(numbers) > (most or math.inf)
            ):
                bound = f"1 to {most}" if most else "1 or more"
                raise ValueError(
                    f"encoder.{name} is {numbers}; allowed: {each * self.layers} numbers, each {bound}, or none"
                )

    @property
    def lookahead(self) -> int:
        """Feature frames after a step that its output may depend on."""
        return self.streaming_chunk_size - self.streaming_step_size

    @property
    def left_context(self) -> int:
        """Encoder frames before its own that an attention layer keeps: the whole ones that fit in its window; none in
        linear attention, which keeps a sum."""
        if self.attention == "linear":
            return 0
        return (self.local_frames if self.attention == "local" else self.max_cached_frames) // self.subsampling

    @property
    def head_size(self) -> int:
        return exact_div(self.hidden_size, self.attention_heads)

    @property
    def blocks(self) -> tuple[BlockShape, ...]:
        """The shape of each block."""
        inner = self.hidden_size * self.ffn_expansion
        heads = self.layer_heads or [self.attention_heads] * self.layers
        ffn = self.layer_ffn or [inner] * (2 * self.layers)
        channels = self.layer_channels or [self.hidden_size] * self.layers
        return tuple(
            BlockShape(heads[i], self.head_size, ffn[2 * i], ffn[2 * i + 1], channels[i]) for i in range(self.layers)
        )

    @property
    def frames_per_step(self) -> int:
        """Encoder frames that one step makes."""
        return exact_div(self.streaming_step_size, self.subsampling)

    @property
    def receptive_field(self) -> float:
        """Feature frames before the first frame of a step that may influence its output; older ones never do. Infinite
        in linear attention, where they fade."""
        if self.attention == "linear":
            return math.inf
        return self.layers * (self.left_context + self.conv_kernel_size - 1) * self.subsampling


@dataclass(frozen=True)
class Config:
    """All that a model needs to be built and run; saved inside every checkpoint."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    max_command_duration_s: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.max_command_duration_s <= 60:
            raise ValueError(f"max_command_duration_s is {self.max_command_duration_s}; allowed: above 0, at most 60")

    @property
    def encoder_frame_s(self) -> float:
        """Seconds from one encoder frame to the next."""
        return self.encoder.subsampling * self.features.frame_shift_ms / 1000


PRESETS: dict[str, Config] = {
    # The original model and its slim version; the subsampling makes one step one encoder frame.
    "base": Config(),
    "small": Config(
        encoder=EncoderConfig(
            layers=2,
            attention_heads=4,
            hidden_size=64,
            conv_kernel_size=15,
            stem_channels=16,
            subsampling=3,
            streaming_chunk_size=5,
            max_cached_frames=50,
            streaming_step_size=3,
        )
    ),
}

# The constants of the original configuration, and the field that each one sets.
ORIGINAL_CONSTANTS: dict[str, str] = {
    "CONFORMER_LAYERS": "encoder.layers",
    "CONFORMER_ATTENTION_HEADS": "encoder.attention_heads",
    "CONFORMER_HIDDEN_SIZE": "encoder.hidden_size",
    "CONFORMER_CONV_KERNEL_SIZE": "encoder.conv_kernel_size",
    "STREAMING_CHUNK_SIZE": "encoder.streaming_chunk_size",
    "MAX_CACHED_FRAMES": "encoder.max_cached_frames",
    "STREAMING_STEP_SIZE": "encoder.streaming_step_size",
    "FRAME_SHIFT_MS": "features.frame_shift_ms",
    "MAX_COMMAND_DURATION_S": "max_command_duration_s",
}


def load(source: str | Path) -> Config:
    """A configuration from a preset's name, a TOML file, or a `config.py` holding the original's constants.

    Raises: ValueError, one line, for an unknown preset, key, type, or combination; FileNotFoundError.
    """
    if str(source) in PRESETS:
        return PRESETS[str(source)]
    path = Path(source)
    if path.suffix not in (".toml", ".py"):
        raise ValueError(f"no preset {str(source)!r}; allowed: {', '.join(PRESETS)}, or a path ending in .toml or .py")
    if path.suffix == ".py":
        return from_constants(path.read_bytes(), str(path))
    table = read_toml(path)
    try:
        return from_dict(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises: ValueError naming file, line and column; FileNotFoundError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not valid TOML: not UTF-8 text at byte {error.start}") from None
    except (IsADirectoryError, PermissionError) as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None


def from_dict(table: dict[str, Any]) -> Config:
    """A configuration from nested dictionaries, as TOML gives them. A key `preset` names the values to start from.

    Raises: ValueError for an unknown key, a wrong type, or an impossible combination.
    """
    table = dict(table)
    preset = table.pop("preset", "base")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; allowed: {', '.join(PRESETS)}")
    return overlay(PRESETS[preset], table)


def overlay(base: Section, table: dict[str, Any], where: str = "") -> Section:
    """A copy of the dataclass `base` with the keys of `table` replaced, recursively and strictly.

    Raises: ValueError for an unknown key, a wrong type, or values the dataclass refuses.
    """
    assert is_dataclass(base) and not isinstance(base, type)
    known = get_type_hints(type(base))
    changes: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{where}{key}"
        if key not in known:
            raise ValueError(f"unknown key {name!r}; allowed: {', '.join(where + f.name for f in fields(base))}")
        current = getattr(base, key)
        if is_dataclass(current):
            if not isinstance(value, dict):
                raise ValueError(f"{name} is {value!r}; allowed: a table")
            changes[key] = overlay(current, value, f"{name}.")
        else:
            changes[key] = _typed(value, known[key], name)
    return replace(base, **changes)


def _typed(value: Any, expected: Any, name: str) -> Any:
    """`value` if it has the type `expected` (a whole number passes as a float, True and False are no numbers)."""
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = getattr(expected, "__origin__", expected)  # list[str] -> list
    if not isinstance(plain, type):  # a union such as `str | None`
        plain = tuple(option for option in expected.__args__ if option is not type(None))
    wrong = not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool)
    if not wrong and isinstance(value, (list, dict)):  # every entry of a list[str], every value of a dict[str, str]
        entries = value.values() if isinstance(value, dict) else value
        wrong = not all(isinstance(entry, expected.__args__[-1]) for entry in entries)
    if wrong:
        kind = getattr(expected, "__name__", str(expected)) if plain is expected else str(expected)
        raise ValueError(f"{name} is {value!r} ({type(value).__name__}); allowed: {kind}")
    if plain is tuple or plain is list:
        return plain(value)
    return value


def from_constants(text: str | bytes, name: str = "config.py") -> Config:
    """A configuration from Python source that assigns the original's constants; it is parsed, never run.

    Other names in the file are left alone; constants that are absent keep the value of the preset `base`. Where the
    step size is given, the subsampling factor is set to it, so that one step makes one encoder frame as in the presets.
    Raises: ValueError where the file is not Python, holds none of the constants, or one of them is no plain number.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{name}: not valid Python: {error}") from None
    table: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value_node = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value_node = [node.target], node.value
        else:
            continue
        for target in targets:
            if not isinstance(target, ast.Name) or target.id not in ORIGINAL_CONSTANTS:
                continue
            if not isinstance(value_node, ast.Constant) or type(value_node.value) not in (int, float):
                raise ValueError(f"{name}:{node.lineno}: {target.id} is not a plain number")
            *section, key = ORIGINAL_CONSTANTS[target.id].split(".")
            (table.setdefault(section[0], {}) if section else table)[key] = value_node.value
    if not table:
        raise ValueError(f"{name}: holds none of {', '.join(ORIGINAL_CONSTANTS)}")
    if "streaming_step_size" in table.get("encoder", {}):
        table["encoder"]["subsampling"] = table["encoder"]["streaming_step_size"]
    return from_dict(table)


def to_dict(config: Config) -> dict[str, Any]:
    return asdict(config)


def to_toml(config: Config) -> str:
    """The configuration as TOML that `load` reads back to an equal one."""
    table = asdict(config)
    lines = [f"{key} = {value!r}" for key, value in table.items() if not isinstance(value, dict)]
    for section, values in table.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]"]
            lines += [
                f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in values.items()
            ]
    return "\n".join(lines) + "\n"


def _either(first: int, second: int) -> str:
    return f"{first} or {second}" if first > 0 else str(second)
