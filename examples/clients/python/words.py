"""What a model's log-probabilities say, where its units are words. The rules are those of kouling's decoder.py for
phrases of one word: the flow into a word is the probability that it begins in a frame, and the sum of it over the few
frames of a spike is the probability that it was said."""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

USUAL = {"threshold": 0.5, "refractory_s": 0.5, "settle_s": 0.16, "isolation_s": 0, "hesitation_s": 0, "sure": 0.98}
USUAL |= {"confidence_slope": 1, "confidence_bias": 0, "onset_s": {}, "offset_s": {}}


@dataclass(eq=False)
class Word:
    unit: int
    grown: int  # encoder frame
    spike: float = 0.0  # encoder frame
    probability: float = 0.0
    alone: float = 1.0  # P(no unknown word since)


class Words:
    """Frames of one stream in, words out, each once: (start_s, end_s, confidence, name)."""

    def __init__(self, info):
        encoder, frame_shift_ms = info["config"]["encoder"], info["config"]["features"]["frame_shift_ms"]
        self.units, self.told = info["units"], USUAL | info["decoder"]
        self.frame_s = encoder["subsampling"] * frame_shift_ms / 1000
        self.lookahead_s = (encoder["streaming_chunk_size"] - encoder["streaming_step_size"]) * frame_shift_ms / 1000
        self.settle = max(round(self.told["settle_s"] / self.frame_s), 1)
        self.hesitation = round(self.told["hesitation_s"] / self.frame_s)
        self.known = deque(maxlen=round(self.told["isolation_s"] / self.frame_s))  # P(no unknown word), last frames
        self.now, self.before, self.waiting, self.heard = 0, 0.0, [], {}

    def accept(self, log_probs):
        """log_probs: (units,) of the next encoder frame."""
        probs = np.exp(log_probs)
        flow = probs * (1 - self.before) * math.prod(self.known)  # a word begins here, no unknown one before it
        self.before = probs
        self.known.append(1 - probs[1])
        growing = [word for word in self.waiting if self.now - word.grown <= self.settle]
        for word in self.waiting:
            if (word in growing or self.hesitating(word, self.now)) and (self.known.maxlen or self.hesitation):
                word.alone *= 1 - probs[1]
        for unit in np.flatnonzero(flow[2:] > 0.001) + 2:  # behind blank and unknown
            same = [word for word in growing if word.unit == unit]
            if flow[unit] > 0.02 and not same:
                same = [Word(unit, self.now)]
                self.waiting += same
            for word in same:
                word.grown = self.now if flow[unit] > 0.02 else word.grown
                word.probability += flow[unit]
                word.spike += (self.now - word.spike) * flow[unit] / word.probability
        self.now += 1
        return self.decided(self.now - 1)

    def decided(self, now=math.inf):
        """Words that grow no more: of those in one place the likeliest. now: infinity if the stream has ended."""
        found = []
        for word in sorted(self.waiting, key=lambda word: -word.probability):
            near = [other for other in self.waiting if abs(other.spike - word.spike) <= self.settle]
            if any(now - other.grown < self.settle for other in near) or self.hesitating(word, now):
                continue
            self.waiting.remove(word)
            refractory = self.told["refractory_s"] / self.frame_s
            taken = any(
                abs(word.spike - spike) < (refractory if unit == word.unit else self.settle)
                for unit, spike in self.heard.items()
            )
            if self.confidence(word) >= self.told["threshold"] and not taken:
                self.heard[word.unit] = word.spike
                found.append(self.event(word))
        return found

    def hesitating(self, word, now):
        """Whether someone may still talk on, who then meant no command. A sure word is meant, and those before it."""
        sure = [other.spike for other in self.waiting if self.confidence(other) >= self.told["sure"]]
        return now - word.spike < self.hesitation and not any(spike >= word.spike for spike in sure)

    def confidence(self, word):
        p = min(max(min(word.probability, 1) * word.alone, 1e-6), 1 - 1e-6)
        return 1 / (1 + math.exp(-self.told["confidence_slope"] * math.log(p / (1 - p)) - self.told["confidence_bias"]))

    def event(self, word):
        name, spike_s = self.units[word.unit], (word.spike + 0.5) * self.frame_s - self.lookahead_s
        start_s = max(spike_s - self.told["onset_s"].get(name, 0.3), 0)
        return start_s, max(spike_s - self.told["offset_s"].get(name, 0), start_s), self.confidence(word), name
