"""Hear the words of an exported model in a WAV file, without kouling: `python listen.py BUNDLE FILE.wav`, 16 kHz, mono,
16 bits.

BUNDLE is what `kouling export en-commands --target onnx -o BUNDLE` makes; `pip install onnxruntime kaldi-native-fbank`.
"""

import json
import math
import sys
import wave
from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import onnxruntime
from words import Words

if len(sys.argv) != 3:
    sys.exit("usage: listen.py BUNDLE FILE.wav")
bundle = Path(sys.argv[1])
told = json.loads((bundle / "model.json").read_text())
mels, encoder = told["info"]["config"]["features"], told["info"]["config"]["encoder"]
lookahead = encoder["streaming_chunk_size"] - encoder["streaming_step_size"]
words, waiting, taken = Words(told["info"]), [], 0

# What the model gives as NAME.next it takes as NAME in the next call; state.bin has the first ones.
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1  # a step is too small to share
session = onnxruntime.InferenceSession(str(bundle / told["file"]), options, providers=["CPUExecutionProvider"])
shapes = {each["name"]: each["shape"] for each in told["inputs"][1:]}
ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
first = np.split(np.fromfile(bundle / told["initial"], np.float32), ends[:-1])
state = {name: part.reshape(shapes[name]) for name, part in zip(shapes, first, strict=True)}


def show(heard):
    for start_s, end_s, confidence, name in heard:
        print(f"{start_s:8.3f} {end_s:8.3f}  {100 * confidence:3.0f}%  {name}", flush=True)


def step(frame):
    """frame: (mels,) log-mel power; a step has several."""
    global state
    waiting.append(np.maximum(frame - mels["log_floor"], 0) / mels["log_scale"])
    if len(waiting) == told["frames"]:
        logits, *following = session.run(None, {"features": np.array([waiting], np.float32), **state})
        state = dict(zip(state, following, strict=True))
        waiting.clear()
        for each in logits[0] - logits[0].max(axis=1, keepdims=True):
            show(words.accept(each - np.log(np.exp(each).sum())))


kaldi = knf.FbankOptions()
kaldi.frame_opts.dither, kaldi.mel_opts.num_bins = 0, mels["num_mels"]
kaldi.mel_opts.low_freq, kaldi.mel_opts.high_freq = mels["low_hz"], mels["high_hz"]
fbank = knf.OnlineFbank(kaldi)
with wave.open(sys.argv[2]) as file:
    if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (16000, 1, 2):
        sys.exit(f"{sys.argv[2]}: not 16 kHz, mono, 16 bits")
    while samples := file.readframes(1600):  # as from a microphone
        fbank.accept_waveform(16000, np.frombuffer(samples, np.int16).astype(np.float32))
        while taken < fbank.num_frames_ready:
            step(fbank.get_frame(taken))
            taken += 1
for _ in range(lookahead + 80 + told["frames"]):  # silence brings out what was said last
    step(np.zeros(mels["num_mels"], np.float32))
show(words.decided())
