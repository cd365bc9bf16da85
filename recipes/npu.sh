#!/usr/bin/env bash
# What a model is as static int8 for NPUs: its operators, memory and time by Vela's estimate, and its accuracy beside the
# float model's, both in LiteRT, on validation clips. The tables of docs/ethos-u.md are what this prints.
#   bash recipes/npu.sh MODEL VALIDATION RECORDINGS OUT
# VALIDATION: made by `kouling train RECIPE --validation VALIDATION`. RECORDINGS: a folder of speech that is not in it,
# some hundred clips of the training data, to calibrate by and to compare with PyTorch. OUT: folder for the bundles.
set -euo pipefail
model=$1 clips=$2/clips recordings=$3 out=$4
mkdir -p "$out"
say() { echo "--- kouling $*"; COLUMNS=400 kouling "$@"; }

say export "$model" --target litert --recordings "$recordings" -o "$out/$model-float"
say export "$model" --target ethos-u --recordings "$recordings" -o "$out/$model-static"
say export "$model" --target ethos-u --levels 31 --recordings "$recordings" -o "$out/$model-31"
for accelerator in ethos-u65-256 ethos-u85-256; do
  say export "$model" --target ethos-u --accelerator $accelerator --recordings "$recordings" -o "$out/$model-$accelerator"
done
step=$(python -c "import sys, kouling; print(kouling.load(sys.argv[1]).info.config.encoder.streaming_step_size)" "$model")
frames=$(((500 + step - 1) / step * step)) # 5 s, rounded up to whole steps
say export "$model" --target ethos-u --accelerator ethos-u85-256 --frames "$frames" --recordings "$recordings" -o "$out/$model-500"
for form in float static 31; do
  say evaluate "$clips" --model "$out/$model-$form" | tail -1
done
