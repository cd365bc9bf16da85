"""Commands with slots: probabilities are those of CTC, slots hold what was said, and memory is bounded."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kouling import grammar
from kouling.commands import BLANK, UNKNOWN, Command, CommandSet, parse
from kouling.decoder import Decoder, DecoderConfig
from kouling.graph_search import MOST_PATH, GraphSearch, SetGraph
from tests.orders import ORDERS

FRAME_S = 0.04
MAX_GAP = 25  # frames, of DecoderConfig.max_gap_s

LogProbs = NDArray[np.float32]

UNITS = (BLANK, UNKNOWN, *grammar.words(ORDERS))


def listening(table: dict[str, Any], units: tuple[str, ...] = UNITS, **settings: Any) -> Decoder:
    return Decoder(units, parse(table, units, "set"), DecoderConfig(**settings), FRAME_S)


def spoken(text: str, units: tuple[str, ...] = UNITS, gap: int = 8, sure: float = 0.99, end: int = 60) -> LogProbs:
    """A spike for each word, a word like "small/large:0.7" shared by two; silence behind."""
    words = text.split()
    probabilities = np.full((5 + gap * len(words) + end, len(units)), 1e-8)
    probabilities[:, 0] = 1.0
    for place, word in enumerate(words):
        one, _, rest = word.partition("/")
        other, _, much = rest.partition(":")
        row = probabilities[5 + gap * place]
        row[units.index(one)] = float(much or sure)
        if other:
            row[units.index(other)] = sure - float(much)
        row[0] = 1.0 - row[1:].sum()
    return np.log(probabilities).astype(np.float32)


def hear(decoder: Decoder, log_probs: LogProbs) -> list[Command]:
    decoder.reset()
    return decoder.accept(log_probs) + decoder.flush()


def random_log_probs(num_frames: int, num_units: int, seed: int, evenness: float) -> LogProbs:
    probabilities = np.random.default_rng(seed).dirichlet(np.full(num_units, evenness), num_frames)
    return np.log(np.maximum(probabilities, 1e-12)).astype(np.float32)


# Probabilities


def completions(log_probs: LogProbs, sentences: set[tuple[int, ...]]) -> NDArray[np.float64]:
    """By enumeration of all paths of CTC: the probability that a sentence is completed in each frame."""
    frames, units = log_probs.shape
    flow = np.zeros(frames)
    for path in itertools.product(range(units), repeat=frames):
        probability = math.exp(sum(float(log_probs[t, unit]) for t, unit in enumerate(path)))
        onsets = [t for t, unit in enumerate(path) if unit and (t == 0 or path[t - 1] != unit)]
        said = [path[t] for t in onsets]
        for end in range(1, len(said) + 1):
            if any(tuple(said[end - len(each) : end]) == each for each in sentences if len(each) <= end):
                flow[onsets[end - 1]] += probability
    return flow


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("phrase", "sentences"),
    [
        ("{x} b", ["a b", "b b"]),
        ("a {x}", ["a a", "a b"]),
        ("(a)+", ["a"]),  # however often before
        ("(a b)+", ["a b"]),
        ("(a & b)", ["a b", "b a"]),
        ("[a] b b", ["b b"]),  # each after an a or not
        ("[b] a {y:pair}", ["a a b", "a b a"]),
        ("([b] a)+", ["a"]),
        ("(a)+ b", ["a b"]),
    ],
)
def test_the_flow_into_the_ends_is_that_of_all_paths_of_ctc(phrase: str, sentences: list[str], seed: int) -> None:
    units = (BLANK, "a", "b")
    slots = {"x": ["a", "b"], "pair": ["a b", "b a"]}
    command = {"name": "it", "phrases": [phrase, "{x} {x} {x} {x} {x} {x} {x} {x} {x}"]}  # never, but makes it a graph
    graph = SetGraph(parse({"slots": slots, "command": [command], "weak_words": []}, units, "set"))
    log_probs = random_log_probs(6, len(units), seed, evenness=40.0)
    expected = completions(log_probs, {tuple(units.index(word) for word in each.split()) for each in sentences})
    search = GraphSearch(graph, 0, 0.0, 100.0, 100.0)
    before, ends = np.zeros(len(units)), np.zeros(len(log_probs))
    for frame, row in enumerate(np.exp(log_probs.astype(np.float64))):
        ends[frame] = sum(flow for _, flow, _ in search.advance(row, before, 1.0, frame))
        before = row
    assert ends == pytest.approx(np.where(expected > 1e-3, expected, 0.0), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_masses_stay_probabilities(seed: int) -> None:
    decoder = listening(ORDERS)
    for row in random_log_probs(200, len(UNITS), seed, evenness=[0.02, 0.1, 1.0, 30.0, 0.05][seed]):
        decoder.accept(row[None])
        total = decoder.search.said + decoder.search.rest
        assert np.isfinite(total).all() and total.max() <= 1 + 1e-6
        for each in (decoder.search.sure, decoder.search.flow, decoder.search.said_age, decoder.search.rest_gap):
            assert np.isfinite(each).all()
        assert decoder.search.count.max() <= MOST_PATH


# What was said


@pytest.mark.parametrize(
    ("text", "name", "slots"),
    [
        ("can i get a small flat white", "order", {"size": "small", "drink": "flat white"}),
        ("big espresso", "order", {"size": "large", "drink": "espresso"}),
        ("latte with two shots no milk one sugars", "order", {"drink": "latte", "shots": 2, "sugar": "1"}),
        ("latte with no milk four sugars ten shots", "order", {"drink": "latte", "shots": 10, "sugar": "4"}),
        ("latte with four sugars", "order", {"drink": "latte", "sugar": "4"}),
        ("set lamp to twenty five percent", "level", {"level": 25}),
        ("set lamp to a hundred and five percent", "level", {"level": 105}),
        ("set lamp to nine hundred ninety nine percent", "level", {"level": 999}),
        ("dial five", "dial", {"who": "5"}),
        ("dial five five oh", "dial", {"who": "550"}),
        ("dial double five zero one", "dial", {"who": "5501"}),
        ("add latte and flat white espresso", "add", {"drink": ["latte", "flat white", "espresso"]}),
        ("add latte latte", "add", {"drink": ["latte", "latte"]}),
        ("stop it", "stop", {}),
    ],
)
def test_slots_hold_what_was_said(text: str, name: str, slots: dict[str, Any]) -> None:
    (heard,) = hear(listening(ORDERS), spoken(text))
    assert (heard.name, heard.slots) == (name, slots)
    assert list(heard.slot_confidences) == list(heard.slots) and all(c > 0.9 for c in heard.slot_confidences.values())


def test_each_slot_has_a_confidence_of_its_own() -> None:
    (heard,) = hear(listening(ORDERS), spoken("small/large:0.7 espresso"))
    assert heard.slots == {"size": "small", "drink": "espresso"}
    assert heard.slot_confidences["size"] == pytest.approx(0.7, abs=0.01)
    assert heard.slot_confidences["drink"] == pytest.approx(0.99, abs=0.01)
    assert heard.confidence == pytest.approx(0.99, abs=0.001)  # an order it is in any case


def test_of_a_value_of_several_words_all_count() -> None:
    (heard,) = hear(listening(ORDERS), spoken("dial five/nine:0.8 five/nine:0.8"))
    assert heard.slots == {"who": "55"}
    assert heard.slot_confidences["who"] == pytest.approx(0.64, abs=0.02)


@pytest.mark.parametrize(("fillers", "confidence"), [(0.0, None), (0.4, None), (0.7, 0.69), (1.0, 0.99)])
def test_an_unknown_word_may_stand_between_the_words_at_a_price(fillers: float, confidence: float | None) -> None:
    heard = hear(listening({**ORDERS, "fillers": fillers}), spoken("set lamp <unk> to twenty percent"))
    assert [each.slots for each in heard] == ([{"level": 20}] if confidence else [])
    assert [each.confidence for each in heard] == ([pytest.approx(confidence, abs=0.02)] if confidence else [])


# Weak words

COFFEE: dict[str, Any] = {
    "slots": {"milk": ["a little milk", "some milk"], "drink": ["latte", "mocha"]},
    "command": [{"name": "order", "phrases": ["i want {drink} [with {milk} and {milk}]"]}],
}
COFFEE_UNITS = (BLANK, UNKNOWN, *grammar.words(COFFEE))


@pytest.mark.parametrize(
    ("said", "milk"),
    [
        ("i want latte with a little milk and some milk", ["a little milk", "some milk"]),
        ("i want latte a little milk some milk", ["a little milk", "some milk"]),
        ("i want latte with some milk little milk", ["some milk", "a little milk"]),
        ("i want latte little milk little milk", ["a little milk", "a little milk"]),
    ],
)
def test_weak_words_may_be_swallowed(said: str, milk: list[str]) -> None:
    (heard,) = hear(listening(COFFEE, COFFEE_UNITS), spoken(said, COFFEE_UNITS))
    assert (heard.name, heard.slots) == ("order", {"drink": "latte", "milk": milk})
    assert heard.confidence > 0.9
    strict = hear(listening({**COFFEE, "weak_words": []}, COFFEE_UNITS), spoken(said, COFFEE_UNITS))
    assert [each.slots.get("milk") == milk for each in strict if each.name == "order"] == [said.count("with a") > 0]


def test_words_that_were_all_said_come_before_swallowed_ones() -> None:
    table = {"command": [{"name": name, "phrases": [f"({name})+"]} for name in ("turn it on", "turn on")]}
    units = (BLANK, UNKNOWN, *grammar.words(table))
    for said in ("turn on", "turn it on"):
        (heard,) = hear(listening(table, units), spoken(said, units))
        assert heard.name == said


def test_plain_commands_are_searched_as_sentences_where_a_model_asks_for_it() -> None:
    table = {"command": [{"name": "open", "phrases": ["open the window", "window [open]"]}, {"name": "stop"}]}
    units = (BLANK, UNKNOWN, *grammar.words(table))
    as_sentences, as_product = parse(table, units, "set", sentences=True), parse(table, units, "set")
    assert [bool(spec.graph) for spec in as_sentences.commands] == [True, False]
    assert not as_sentences.commands[0].sequences and as_sentences.commands[1].sequences == ((5,),)
    assert not any(spec.graph for spec in as_product.commands)

    def listen(commands: CommandSet, said: str, sure: float = 0.99) -> list[str]:
        decoder = Decoder(units, commands, DecoderConfig(confidence_per_word=2.0), FRAME_S)
        return [heard.name for heard in hear(decoder, spoken(said, units, sure=sure))]

    for said in ("open the window", "window open", "window", "stop"):
        assert listen(as_sentences, said) == listen(as_product, said) == ["stop" if said == "stop" else "open"]
    # As sure as the least sure word, not as all at once; and "the" is next to nothing.
    table["command"][0]["phrases"] = ["open the window"]
    as_sentences, as_product = parse(table, units, "set", sentences=True), parse(table, units, "set")
    assert listen(as_sentences, "open the window", 0.7) == ["open"] and not listen(as_product, "open the window", 0.7)
    assert listen(as_sentences, "open window") == ["open"] and not listen(as_product, "open window")
    assert not listen(as_sentences, "open the") and not listen(as_sentences, "window")
    with pytest.raises(ValueError, match="is a phrase of command 'open' too"):
        parse(
            {"command": [{"name": each, "phrases": ["open the window"]} for each in ("open", "too")]},
            units,
            "set",
            True,
        )


def test_no_sentence_begins_or_ends_without_its_weak_word() -> None:
    table = {"command": [{"name": "it", "phrases": ["the lamp is with (me)+"]}]}
    units = (BLANK, UNKNOWN, *grammar.words(table))
    assert hear(listening(table, units), spoken("the lamp is me", units))
    assert hear(listening(table, units), spoken("the lamp with me", units))
    assert not hear(listening(table, units), spoken("lamp is with me", units))
    assert not hear(listening(table, units), spoken("the lamp me", units))  # two at once
    assert not hear(listening(table, units), spoken("the lamp is with", units))


# Decisions


def test_of_all_readings_the_longest_is_heard_once() -> None:
    for seed in range(20):
        decoder = listening(ORDERS)
        rng = random.Random(seed)
        command = rng.choice(grammar.read(ORDERS, "set").commands)
        text, slots = command.sample(rng)
        (heard,) = hear(decoder, spoken(text))
        assert (heard.name, heard.slots) == (command.name, slots), text


def test_an_order_waits_for_what_may_still_follow_and_no_longer() -> None:
    decoder = listening(ORDERS)
    log_probs = spoken("large latte", end=100)
    emitted = [frame for frame, row in enumerate(log_probs) if decoder.accept(row[None])]
    assert emitted and 13 + MAX_GAP <= emitted[0] <= 13 + MAX_GAP + 2
    decoder = listening(ORDERS)
    log_probs = spoken("set lamp to five percent")
    emitted = [frame for frame, row in enumerate(log_probs) if decoder.accept(row[None])]
    assert emitted == [5 + 8 * 4 + 4]  # nothing may follow: as soon as it has settled


def test_two_orders_in_a_row_are_two_events() -> None:
    heard = hear(listening(ORDERS), spoken("large latte small espresso dial one stop it"))
    assert [(each.name, each.slots) for each in heard] == [
        ("order", {"size": "large", "drink": "latte"}),
        ("order", {"size": "small", "drink": "espresso"}),
        ("dial", {"who": "1"}),
        ("stop", {}),
    ]


def test_commands_without_slots_hear_the_same_beside_graphs() -> None:
    plain = {"command": [each for each in ORDERS["command"] if each["name"] == "stop"]}
    log_probs = random_log_probs(300, len(UNITS), 3, evenness=0.02)
    log_probs[::20] = spoken("stop")[5]
    alone = hear(listening(plain, hesitation_s=0.0), log_probs)
    together = [each for each in hear(listening(ORDERS, hesitation_s=0.0), log_probs) if each.name == "stop"]
    assert alone and [each.confidence for each in together] == [each.confidence for each in alone]


def test_portions_make_no_difference() -> None:
    log_probs = spoken("can i get a large latte with two shots no milk")
    whole = hear(listening(ORDERS), log_probs)
    decoder = listening(ORDERS)
    parts = [each for start in range(0, len(log_probs), 7) for each in decoder.accept(log_probs[start : start + 7])]
    assert parts + decoder.flush() == whole


def test_mandarin_numbers_and_digits() -> None:
    table = {
        "command": [
            {"name": "灯", "phrases": ["[请]把灯调到{level:number}"]},
            {"name": "号", "phrases": ["拨打{who:digits}"]},
        ]
    }
    units = (BLANK, UNKNOWN, *grammar.words(table, "zh"))
    decoder = listening(table, units)
    for text, slots in [
        ("把灯调到 二 十 五", {"level": 25}),
        ("请 把灯调到 两 百 零 五", {"level": 205}),
        ("把灯调到 一 百 五", {"level": 150}),
        ("把灯调到 零", {"level": 0}),
        ("拨打 幺 幺 零", {"who": "110"}),
    ]:
        (heard,) = hear(decoder, spoken(text, units))
        assert heard.slots == slots, text


def test_a_sentence_of_more_words_is_surer() -> None:
    faint = spoken("large latte", sure=0.6)
    plain, longer = (
        hear(listening({**ORDERS, "threshold": 0.3}, confidence_per_word=per_word), faint) for per_word in (0.0, 2.0)
    )
    (one,), (other,) = plain, longer
    assert one.slots == other.slots == {"drink": "latte", "size": "large"}
    odds = other.confidence / (1 - other.confidence) / (one.confidence / (1 - one.confidence))
    assert odds == pytest.approx(np.exp(2.0), rel=0.02)
