"""The search gives the exact probability of a phrase, emits each command once, and costs the same for ever."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling.commands import BLANK, UNKNOWN, Command, CommandSet, parse
from kouling.decoder import Decoder, DecoderConfig, PhraseTree

UNITS = (BLANK, UNKNOWN, *"go stop left right now please".split())
FRAME_S = 0.04
SETTLE = 4  # frames, of DecoderConfig.settle_s
MAX_GAP = 25  # frames, of DecoderConfig.max_gap_s

LogProbs = NDArray[np.float32]


def listening(*phrases: str, units: tuple[str, ...] = UNITS, **settings: Any) -> Decoder:
    """A decoder for commands that are named after their phrases, with other settings than the defaults."""
    table = {"command": [{"name": phrase, "phrases": [phrase]} for phrase in phrases]}
    return Decoder(units, parse(table, units, "set"), DecoderConfig(**settings), FRAME_S)


def spikes(
    num_frames: int, *said: tuple[int, str] | tuple[int, str, float], units: tuple[str, ...] = UNITS
) -> LogProbs:
    """Blank frames but for those given: (frame, unit) or (frame, unit, probability)."""
    probabilities = np.full((num_frames, len(units)), 1e-8)
    probabilities[:, 0] = 1.0
    for frame, unit, *probability in said:
        probabilities[frame, units.index(unit)] = probability[0] if probability else 0.99
        probabilities[frame, 0] = 1.0 - probabilities[frame, 1:].sum()
    return np.log(probabilities).astype(np.float32)


def hear(decoder: Decoder, log_probs: LogProbs) -> list[tuple[str, int]]:
    """(command, frame in which it was emitted) of a whole recording; the frame after the last for the flush."""
    heard = []
    for frame, row in enumerate(log_probs):
        heard += [(command.name, frame) for command in decoder.accept(row[None])]
    return heard + [(command.name, len(log_probs)) for command in decoder.flush()]


def names(decoder: Decoder, log_probs: LogProbs) -> list[str]:
    return [name for name, _ in hear(decoder, log_probs)]


def random_log_probs(num_frames: int, num_units: int, seed: int, evenness: float) -> LogProbs:
    probabilities = np.random.default_rng(seed).dirichlet(np.full(num_units, evenness), num_frames)
    return np.log(np.maximum(probabilities, 1e-12)).astype(np.float32)


# Probabilities


def completions(log_probs: LogProbs, phrase: tuple[int, ...]) -> tuple[NDArray[np.float64], float, float]:
    """By enumeration of all paths of CTC: the expected number of times that the phrase is completed in each frame, and
    the mean frame of a completion and its mean frames since the first unit's spike."""
    frames, units = log_probs.shape
    flow, spike, length = np.zeros(frames), 0.0, 0.0
    for path in itertools.product(range(units), repeat=frames):
        probability = math.exp(sum(float(log_probs[t, unit]) for t, unit in enumerate(path)))
        onsets = [t for t, unit in enumerate(path) if unit and (t == 0 or path[t - 1] != unit)]
        for i in range(len(onsets) - len(phrase) + 1):
            if all(path[onsets[i + k]] == unit for k, unit in enumerate(phrase)):
                last = onsets[i + len(phrase) - 1]
                flow[last] += probability
                spike += probability * last
                length += probability * (last - onsets[i])
    return flow, spike / flow.sum(), length / flow.sum()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("phrase", ["a", "a b", "b a", "a a", "a b a"])
def test_a_candidate_is_as_likely_as_all_paths_of_ctc_that_complete_its_phrase(phrase: str, seed: int) -> None:
    units = (BLANK, "a", "b")
    decoder = listening(phrase, units=units, settle_s=9.0, max_gap_s=9.0, max_command_duration_s=9.0)
    log_probs = random_log_probs(7, len(units), seed, evenness=40.0)
    flow, spike, length = completions(log_probs, tuple(units.index(word) for word in phrase.split()))
    assert all(0.02 < value or value == 0.0 for value in flow)  # else the decoder leaves some of it out
    assert decoder.accept(log_probs) == []
    (candidate,) = decoder.open.values()
    assert candidate.probability == pytest.approx(flow.sum(), rel=1e-6)
    assert candidate.spike == pytest.approx(spike, rel=1e-6)
    assert candidate.length == pytest.approx(length, rel=1e-6, abs=1e-9)


def test_units_of_no_phrase_take_their_share_of_the_paths() -> None:
    units = (BLANK, UNKNOWN, "a", "b")
    decoder = listening("a b", units=units, settle_s=9.0, max_gap_s=9.0)
    log_probs = random_log_probs(6, len(units), 2, evenness=60.0)
    flow, _, _ = completions(log_probs, (2, 3))
    assert flow[1:].min() > 0.02
    decoder.accept(log_probs)
    (candidate,) = decoder.open.values()
    assert candidate.probability == pytest.approx(flow.sum(), rel=1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_other_phrases_do_not_change_a_candidate(shared: bool) -> None:
    units = (BLANK, "a", "b", "c")
    settings = {"settle_s": 9.0, "max_gap_s": 9.0}
    alone = listening("a b", units=units, **settings)
    among = listening("a b", *(["a", "a b c", "a c"] if shared else ["c", "b c"]), units=units, **settings)
    log_probs = random_log_probs(7, len(units), 3, evenness=60.0)
    alone.accept(log_probs)
    among.accept(log_probs)
    (expected,) = alone.open.values()
    (found,) = (c for node, c in among.open.items() if among.tree.command[node] == 0)
    assert (found.probability, found.spike, found.length) == pytest.approx(
        (expected.probability, expected.spike, expected.length), rel=1e-9
    )


@pytest.mark.parametrize(("slope", "bias"), [(1.0, 0.0), (0.5, 1.0), (2.0, -0.7)])
@pytest.mark.parametrize("probability", [0.3, 0.8])
def test_confidence_is_the_calibrated_probability(probability: float, slope: float, bias: float) -> None:
    decoder = listening("go", threshold=0.02, confidence_slope=slope, confidence_bias=bias)
    (heard,) = decoder.accept(spikes(20, (5, "go", probability)))
    odds = slope * math.log(probability / (1 - probability)) + bias
    assert heard.confidence == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-4)


def test_confidence_stays_a_probability_at_both_ends() -> None:
    config = DecoderConfig(confidence_slope=3.0, confidence_bias=1.0)
    confidences = [config.confidence(probability) for probability in (0.0, 1e-9, 0.3, 0.6, 1 - 1e-9, 1.0)]
    assert (
        0 < confidences[0] == confidences[1] < confidences[2] < confidences[3] < confidences[4] == confidences[5] <= 1
    )


def test_a_spike_that_is_split_over_two_frames_is_one_command() -> None:
    decoder = listening("go", threshold=0.7)
    assert hear(decoder, spikes(20, (5, "go", 0.5))) == []
    decoder.reset()
    heard = decoder.accept(spikes(20, (5, "go", 0.5), (6, "go", 0.5)))
    assert [(command.name, command.confidence) for command in heard] == [("go", 0.75)]  # of four paths one says nothing


def test_a_phrase_is_as_likely_as_its_words_together() -> None:
    decoder = listening("go left", threshold=0.02)
    (heard,) = decoder.accept(spikes(40, (5, "go", 0.8), (15, "left", 0.6)))
    assert heard.confidence == pytest.approx(0.48, abs=1e-3)


# Commands, once each


@pytest.mark.parametrize("num_frames", [1, 2, 3, 8])
def test_a_word_that_lasts_is_one_command(num_frames: int) -> None:
    decoder = listening("go", "stop")
    assert names(decoder, spikes(80, *((20 + i, "go") for i in range(num_frames)))) == ["go"]


def test_a_command_is_emitted_when_it_has_settled() -> None:
    assert hear(listening("go", "stop"), spikes(60, (5, "go"), (30, "stop"))) == [
        ("go", 5 + SETTLE),
        ("stop", 30 + SETTLE),
    ]


def test_separate_commands_soon_after_one_another_are_both_heard() -> None:
    decoder = listening("go", "stop", "go left")
    assert names(decoder, spikes(60, (5, "stop"), (11, "go"), (17, "left"), (23, "stop"))) == [
        "stop",
        "go left",
        "stop",
    ]


@pytest.mark.parametrize(("gap", "expected"), [(10, ["go"]), (15, ["go", "go"])])
def test_a_command_is_not_heard_again_within_its_refractory_time(gap: int, expected: list[str]) -> None:
    decoder = listening("go", refractory_s=0.5)  # 12.5 frames
    assert names(decoder, spikes(60, (5, "go"), (5 + gap, "go"))) == expected


def test_the_refractory_time_of_one_command_leaves_others_alone() -> None:
    decoder = listening("go", "stop", refractory_s=5.0)
    assert names(decoder, spikes(60, (5, "go"), (15, "stop"), (25, "go"), (35, "stop"))) == ["go", "stop"]


@pytest.mark.parametrize("refractory_s", [0.0, 1.0])
def test_the_refractory_time_of_the_set_comes_before_that_of_the_model(refractory_s: float) -> None:
    command_set = parse({"refractory_s": refractory_s, "command": [{"name": "go"}]}, UNITS, "set")
    decoder = Decoder(UNITS, command_set, DecoderConfig(refractory_s=0.5), FRAME_S)
    twice = ["go", "go"] if refractory_s == 0.0 else ["go"]
    assert names(decoder, spikes(60, (5, "go"), (15, "go"))) == twice  # 0.4 s apart
    decoder.reset()
    assert names(decoder, spikes(60, (5, "go"), (25, "go"))) == twice  # 0.8 s apart


def test_a_command_that_never_settles_is_decided_all_the_same() -> None:
    decoder = listening("go", refractory_s=1.0)
    stuttered = spikes(100, *((frame, "go", 0.6) for frame in range(5, 100, 2)))
    frames = [frame for _, frame in hear(decoder, stuttered)]
    assert frames[0] <= 5 + 4 * SETTLE + 1
    assert len(frames) == 3  # one a second, the refractory time, and the last at the end


# Phrases


@pytest.mark.parametrize("between", [UNKNOWN, "now", "go"])
def test_a_unit_between_the_words_breaks_a_phrase(between: str) -> None:
    decoder = listening("stop left")
    assert names(decoder, spikes(40, (5, "stop"), (15, "left"))) == ["stop left"]
    decoder.reset()
    assert names(decoder, spikes(40, (5, "stop"), (10, between), (15, "left"))) == []


def test_a_repeated_word_needs_a_blank_in_between() -> None:
    assert names(listening("stop stop"), spikes(40, (5, "stop"), (12, "stop"))) == ["stop stop"]
    assert names(listening("stop stop"), spikes(40, *((5 + i, "stop") for i in range(8)))) == []


def test_words_without_a_blank_in_between_are_a_phrase() -> None:
    assert names(listening("go left"), spikes(40, (5, "go"), (6, "go"), (7, "left"))) == ["go left"]


@pytest.mark.parametrize(("gap", "expected"), [(MAX_GAP, ["go left"]), (MAX_GAP + 2, [])])
def test_words_too_far_apart_are_no_phrase(gap: int, expected: list[str]) -> None:
    assert names(listening("go left"), spikes(60, (5, "go"), (5 + gap, "left"))) == expected


@pytest.mark.parametrize(("max_command_duration_s", "expected"), [(1.7, ["go left now"]), (1.5, [])])
def test_a_phrase_that_takes_too_long_is_none(max_command_duration_s: float, expected: list[str]) -> None:
    decoder = listening("go left now", max_command_duration_s=max_command_duration_s)
    assert names(decoder, spikes(80, (5, "go"), (25, "left"), (45, "now"))) == expected


def test_of_a_phrase_and_its_parts_the_longest_is_heard() -> None:
    decoder = listening("go", "left", "go left", "left now", "now")
    assert names(decoder, spikes(40, (5, "go"), (13, "left"))) == ["go left"]
    decoder.reset()
    assert names(decoder, spikes(60, (5, "left"), (13, "now"))) == ["left now"]


def test_the_longest_is_heard_even_if_a_part_is_surer() -> None:
    decoder = listening("left", "go left", threshold=0.5)
    assert names(decoder, spikes(40, (5, "go", 0.6), (13, "left"))) == ["go left"]
    decoder.reset()
    assert names(decoder, spikes(40, (5, "go", 0.4), (13, "left"))) == ["left"]


def test_a_phrase_that_may_go_on_is_emitted_when_the_gap_has_passed() -> None:
    ((name, frame),) = hear(listening("go", "go left"), spikes(60, (5, "go")))
    assert name == "go"
    assert 5 + MAX_GAP < frame <= 5 + MAX_GAP + 2


def test_a_phrase_that_goes_on_with_another_word_is_emitted_at_once() -> None:
    assert hear(listening("go", "go left"), spikes(60, (5, "go"), (13, "stop"))) == [("go", 13)]


@pytest.mark.parametrize("gap", [8, 20])
@pytest.mark.parametrize("phrase", ["go left now", "go left right now", "go left right now please"])
def test_a_part_waits_for_the_longer_phrase_while_that_is_being_said(phrase: str, gap: int) -> None:
    said = [(5 + gap * i, word) for i, word in enumerate(phrase.split())]
    assert names(listening("go", phrase), spikes(160, *said)) == [phrase]


@pytest.mark.parametrize(("again", "expected"), [(0.06, ["go left"]), (0.9, ["go", "go left"])])
def test_a_part_waits_though_its_last_word_is_faintly_heard_again(again: float, expected: list[str]) -> None:
    decoder = listening("go", "go left", refractory_s=0.1)
    assert names(decoder, spikes(60, (5, "go"), (11, "go", again), (20, "left"))) == expected


def test_a_part_is_heard_when_the_longer_phrase_breaks_off() -> None:
    decoder = listening("go", "go left right now")
    assert names(decoder, spikes(80, (5, "go"), (13, "left"), (21, "right"))) == ["go"]
    decoder.reset()
    assert hear(decoder, spikes(80, (5, "go"), (13, "left"), (21, "stop"))) == [("go", 21)]


def test_flush_decides_what_is_open_and_what_waits() -> None:
    assert hear(listening("go"), spikes(7, (5, "go"))) == [("go", 7)]  # still settling
    assert hear(listening("go", "go left"), spikes(12, (5, "go"))) == [("go", 12)]  # waiting for more
    assert hear(listening("go", "go left"), spikes(15, (5, "go"), (13, "left"))) == [("go left", 15)]
    assert hear(listening("go"), spikes(7, (5, "go", 0.3))) == []


# Thresholds


@pytest.mark.parametrize(
    ("own", "of_set", "of_model", "expected"),
    [
        (0.9, 0.2, 0.2, []),
        (0.5, 0.9, 0.9, ["go"]),
        (None, 0.9, 0.2, []),
        (None, 0.5, 0.9, ["go"]),
        (None, None, 0.9, []),
        (None, None, 0.5, ["go"]),
        (0.0, 0.9, 0.9, ["go"]),
        (None, 0.0, 0.9, ["go"]),
    ],
)
def test_the_command_s_threshold_comes_before_the_set_s_and_that_before_the_model_s(
    own: float | None, of_set: float | None, of_model: float, expected: list[str]
) -> None:
    entry = {"name": "go"} if own is None else {"name": "go", "threshold": own}
    table: dict[str, Any] = {"command": [entry]} if of_set is None else {"command": [entry], "threshold": of_set}
    decoder = Decoder(UNITS, parse(table, UNITS, "set"), DecoderConfig(threshold=of_model), FRAME_S)
    assert names(decoder, spikes(40, (5, "go", 0.7))) == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold": 0.0},
        {"threshold": -0.1},
        {"threshold": 1.1},
        {"threshold": math.nan},
        {"confidence_slope": 0.0},
        {"confidence_slope": -1.0},
        {"confidence_slope": math.nan},
        {"confidence_bias": math.nan},
        {"settle_s": -0.1},
        {"settle_s": math.inf},
        {"isolation_s": -1.0},
        {"isolation_s": math.nan},
        {"hesitation_s": -1.0},
        {"sure": 0.0},
        {"sure": 1.1},
        {"refractory_s": math.nan},
        {"max_gap_s": -1.0},
        {"max_command_duration_s": 0.0},
        {"onset_s": {"go": "late"}},
        {"offset_s": {"go": math.nan}},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"decoder.{next(iter(settings))}.* allowed: ") as caught:
        DecoderConfig(**settings)
    assert len(str(caught.value).splitlines()) == 1


# Isolation


@pytest.mark.parametrize(
    ("unknown_at", "expected"),
    [
        (40 - 1, []),  # right before it
        (40 - 25, []),  # 1 s before it
        (40 - 26, ["go"]),
        (40 + 1, []),  # while it is decided
        (40 + SETTLE + 1, ["go"]),
    ],
)
def test_a_command_among_unknown_words_is_not_meant_as_one(unknown_at: int, expected: list[str]) -> None:
    log_probs = spikes(60, (unknown_at, UNKNOWN), (40, "go"))
    assert names(listening("go", isolation_s=1.0), log_probs) == expected
    assert names(listening("go"), log_probs) == ["go"]  # off


def test_a_doubtful_unknown_word_makes_the_command_as_doubtful() -> None:
    decoder = listening("go", isolation_s=1.0, threshold=0.02)
    (heard,) = decoder.accept(spikes(40, (10, UNKNOWN, 0.4), (20, "go", 0.9)))
    assert heard.confidence == pytest.approx(0.6 * 0.9, abs=1e-3)
    decoder.reset()
    (heard,) = decoder.accept(spikes(40, (20, "go", 0.9), (22, UNKNOWN, 0.4)))
    assert heard.confidence == pytest.approx(0.6 * 0.9, abs=1e-3)


def test_a_phrase_is_alone_if_nothing_is_said_before_its_first_word() -> None:
    decoder = listening("go left", isolation_s=1.0)
    assert names(decoder, spikes(60, (20, "go"), (40, "left"))) == ["go left"]
    decoder.reset()
    assert names(decoder, spikes(60, (10, UNKNOWN), (20, "go"), (40, "left"))) == []  # the second is 1.2 s behind it


def test_other_commands_are_no_unknown_words() -> None:
    decoder = listening("go", "stop", isolation_s=1.0)
    assert names(decoder, spikes(60, (10, "stop"), (20, "left"), (30, "go"))) == ["stop", "go"]


def test_a_model_without_the_unknown_unit_hears_as_if_isolation_were_off() -> None:
    units = (BLANK, "a", "b")
    log_probs = spikes(40, (10, "b"), (20, "a"), units=units)
    assert names(listening("a", units=units, isolation_s=1.0), log_probs) == ["a"]


# Hesitation

WAITS: dict[str, Any] = {"hesitation_s": 0.8, "isolation_s": 1.0, "sure": 0.9}


def test_a_doubtful_command_waits_whether_someone_talks_on_and_a_sure_one_does_not() -> None:
    doubtful, sure = spikes(60, (20, "go", 0.7)), spikes(60, (20, "go", 0.95))
    assert hear(listening("go", **WAITS), sure) == hear(listening("go"), sure) == [("go", 20 + SETTLE)]
    assert hear(listening("go", **WAITS), doubtful) == [("go", 40)]
    assert hear(listening("go", **WAITS), doubtful[:30]) == [("go", 30)]  # the end of a recording ends the wait


@pytest.mark.parametrize(
    ("unknown_at", "probability", "expected"),
    [(38, 0.7, []), (41, 0.7, ["go"]), (38, 0.95, ["go"]), (23, 0.95, [])],
)
def test_who_talks_on_did_not_mean_a_doubtful_command(unknown_at: int, probability: float, expected: list[str]) -> None:
    log_probs = spikes(80, (20, "go", probability), (unknown_at, UNKNOWN))
    assert names(listening("go", **WAITS), log_probs) == expected


def test_a_sure_command_ends_the_wait_of_those_before_it() -> None:
    log_probs = spikes(80, (20, "go", 0.7), (30, "left", 0.99))
    assert hear(listening("go", "left", **WAITS), log_probs) == [("go", 30 + SETTLE), ("left", 30 + SETTLE)]
    log_probs = spikes(80, (20, "go", 0.7), (36, "go", 0.99))  # the same command, after its refractory time
    assert hear(listening("go", **WAITS), log_probs) == [("go", 36 + SETTLE), ("go", 36 + SETTLE)]
    log_probs = spikes(80, (20, "go", 0.7), (28, "go", 0.99))  # and within it
    assert names(listening("go", **WAITS), log_probs) == ["go"]


def test_doubtful_commands_come_in_the_order_in_which_they_were_said() -> None:
    log_probs = spikes(80, (20, "go", 0.7), (30, "left", 0.8))
    assert hear(listening("go", "left", **WAITS), log_probs) == [("go", 40), ("left", 50)]


def test_the_hesitation_of_the_set_comes_before_that_of_the_model() -> None:
    command_set = parse({"hesitation_s": 0, "command": [{"name": "go"}]}, UNITS, "set")
    decoder = Decoder(UNITS, command_set, DecoderConfig(**WAITS), FRAME_S)
    assert hear(decoder, spikes(60, (20, "go", 0.7))) == [("go", 20 + SETTLE)]


def test_a_model_without_the_unknown_unit_never_hesitates() -> None:
    units = (BLANK, "a")
    assert hear(listening("a", units=units, **WAITS), spikes(40, (10, "a", 0.6), units=units)) == [("a", 10 + SETTLE)]


# Times


def test_times_are_those_of_the_sounds_and_not_of_the_spikes() -> None:
    command_set = parse({"command": [{"name": "go left"}, {"name": "stop"}]}, UNITS, "set")
    onset_s, offset_s = {"go": 0.35, "left": 9.0, "stop": 0.2}, {"go": 9.0, "left": 0.06, "stop": 0.04}
    config = DecoderConfig(onset_s=onset_s, offset_s=offset_s)
    decoder = Decoder(UNITS, command_set, config, FRAME_S, first_frame_s=-0.05)
    heard = decoder.accept(spikes(90, (20, "go"), (30, "left"), (60, "stop")))
    assert [(c.name, c.start_s, c.end_s) for c in heard] == [
        ("go left", pytest.approx(20.5 * 0.04 - 0.05 - 0.35), pytest.approx(30.5 * 0.04 - 0.05 - 0.06)),
        ("stop", pytest.approx(60.5 * 0.04 - 0.05 - 0.2), pytest.approx(60.5 * 0.04 - 0.05 - 0.04)),
    ]


def test_times_are_never_before_the_stream_nor_back_to_front() -> None:
    config = DecoderConfig(onset_s={"go": 0.3}, offset_s={"go": 0.5})
    decoder = Decoder(UNITS, parse({"command": [{"name": "go"}]}, UNITS, "set"), config, FRAME_S, -0.04)
    (first,) = decoder.accept(spikes(10, (1, "go")))
    assert (first.start_s, first.end_s) == (0.0, 0.0)
    (second,) = decoder.accept(spikes(20, (15, "go")))  # frame 25 of the stream
    assert second.start_s == second.end_s == pytest.approx(25.5 * 0.04 - 0.04 - 0.3)


# Streams


def busy(num_frames: int, seed: int) -> LogProbs:
    """Words of all kinds and strengths, some smeared over frames, at any distance."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 0.5, (num_frames, len(UNITS)))
    scores[:, 0] += 6
    for frame in np.cumsum(rng.integers(2, 30, num_frames // 10)):
        if frame < num_frames - 2:
            scores[frame : frame + rng.integers(1, 3), rng.integers(1, len(UNITS))] += rng.uniform(4, 14)
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


def busy_decoder() -> Decoder:
    phrases = ("go", "stop", "go left", "go left now", "stop stop", "please", "right (now|please)")
    return listening(*phrases, isolation_s=0.3)


def whole(decoder: Decoder, log_probs: LogProbs) -> list[Command]:
    return decoder.accept(log_probs) + decoder.flush()


@pytest.mark.parametrize("frames_per_call", [1, 2, 7, 64])
def test_portions_make_no_difference(frames_per_call: int) -> None:
    log_probs = busy(1500, 0)
    expected = whole(busy_decoder(), log_probs)
    assert len({command.name for command in expected}) >= 4
    decoder = busy_decoder()
    heard: list[Command] = []
    for start in range(0, len(log_probs), frames_per_call):
        heard += decoder.accept(log_probs[start : start + frames_per_call])
    assert heard + decoder.flush() == expected
    assert decoder.accept(log_probs[:0]) == []


def test_a_reset_decoder_equals_a_fresh_one() -> None:
    decoder = busy_decoder()
    assert decoder.accept(busy(337, 1))
    decoder.reset()
    assert whole(decoder, busy(1500, 0)) == whole(busy_decoder(), busy(1500, 0))


@pytest.mark.parametrize(
    "said",
    [
        ((9, "go"),),  # being said
        ((7, "go"),),  # settling
        ((2, "go"),),  # heard, and not again so soon
        ((8, "left"),),  # half a phrase
        ((5, "please"),),  # waiting for more
        ((8, UNKNOWN),),
    ],
)
def test_reset_forgets_all_that_is_under_way(said: tuple[tuple[int, str], ...]) -> None:
    log_probs = spikes(40, (0, "go"), (12, "please"), (20, "now"), (28, "now"))

    def decoder() -> Decoder:
        return listening("go", "left now", "left go", "please", "please now", isolation_s=0.3)

    expected = whole(decoder(), log_probs)
    assert [command.name for command in expected] == ["go", "please now"]
    used = decoder()
    used.accept(spikes(10, *said))
    used.reset()
    assert whole(used, log_probs) == expected


def test_one_decoder_does_not_disturb_another() -> None:
    first, second = busy_decoder(), busy_decoder()
    heard: list[Command] = []
    for left, right in zip(np.split(busy(1500, 0), 30), np.split(busy(1500, 1), 30), strict=True):
        heard += first.accept(left)
        second.accept(right)
    assert heard + first.flush() == whole(busy_decoder(), busy(1500, 0))


def state_size(decoder: Decoder) -> int:
    """Numbers and candidates that the decoder remembers, apart from the commands it has heard, at most one each."""
    assert len(decoder.last_heard) <= len(decoder.commands.commands)
    fields = [value for name, value in vars(decoder).items() if name != "last_heard"]
    arrays = [value for value in fields if isinstance(value, np.ndarray)]
    return sum(array.size for array in arrays) + sum(
        len(value) for value in fields if isinstance(value, dict | list | set | tuple | deque)
    )


def test_what_is_remembered_does_not_grow_with_the_stream() -> None:
    decoder = busy_decoder()
    quiet = spikes(100)
    decoder.accept(quiet)
    fresh = state_size(decoder)
    heard, most = 0, 0
    for minute in range(1000):  # 100,000 frames, 67 minutes
        words = busy(100, minute) if minute % 10 == 0 else quiet
        heard += len(decoder.accept(words))
        most = max(most, len(decoder.open) + len(decoder.waiting))
    assert heard > 200
    assert most <= 2 * len(decoder.tree.unit)
    decoder.accept(quiet)
    assert state_size(decoder) == fresh
    assert not decoder.open and not decoder.waiting


def test_noise_that_never_settles_fills_no_memory() -> None:
    decoder = busy_decoder()
    for seed in range(20):
        decoder.accept(random_log_probs(100, len(UNITS), seed, evenness=0.4))
        assert len(decoder.open) + len(decoder.waiting) <= 3 * len(decoder.tree.unit)


# The tree


def test_phrases_share_what_they_have_in_common() -> None:
    tree = PhraseTree(parse({"command": [{"name": "it", "phrases": ["go left [now]", "go right"]}]}, UNITS, "set"))
    assert [UNITS[unit] for unit in tree.unit[1:]] == ["go", "left", "now", "right"]
    assert tree.command.tolist() == [-1, -1, 0, 0, 0]
    assert [UNITS[unit] for unit in tree.first_unit[1:]] == ["go"] * 4
    assert tree.depth.tolist() == [0, 1, 2, 3, 2]


def many_commands(count: int) -> tuple[tuple[str, ...], CommandSet]:
    words = tuple(f"word{i}" for i in range(20))
    triples = list(itertools.permutations(words, 3))[:: 6840 // count][:count]
    units = (BLANK, UNKNOWN, *words)
    return units, parse({"command": [{"name": " ".join(triple)} for triple in triples]}, units, "set")


def test_three_hundred_phrases_of_three_words_are_told_apart() -> None:
    units, command_set = many_commands(300)
    assert len(command_set.commands) == 300
    decoder = Decoder(units, command_set, DecoderConfig(), FRAME_S)
    for spec in command_set.commands[::30]:
        said = [(5 + 8 * i, word) for i, word in enumerate(spec.name.split())]
        decoder.reset()
        assert [command.name for command in whole(decoder, spikes(40, *said, units=units))] == [spec.name]


@pytest.mark.parametrize("method", [Decoder.accept, Decoder.flush])
def test_nothing_heard_is_no_command(method: Callable[..., list[Command]]) -> None:
    arguments = [spikes(0)] if method is Decoder.accept else []
    assert method(listening("go"), *arguments) == []
