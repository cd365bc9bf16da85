#!/usr/bin/env bash
# Every figure of a model's card, on the validation part of its recipe, which training never hears.
#   recipes/figures.sh MODEL RECIPE DATA     MODEL: installed name or path; DATA: folder of the recipe's tars
set -euo pipefail
model=$1 recipe=$2 data=$3
held=${VALIDATION:-$(mktemp -d)}
[ -d "$held/clips" ] || kouling train "$recipe" --data "$data" --validation "$held"
evaluate() { echo "--- kouling evaluate ${*//$held/VALIDATION}"; kouling evaluate --model "$model" "$@"; }
first() { echo "--- kouling evaluate ${*//$held/VALIDATION}"; kouling evaluate --model "$model" "$@" | sed -n 1p; }
last() { echo "--- kouling evaluate ${*//$held/VALIDATION}"; kouling evaluate --model "$model" "$@" | tail -n 1; }

# The orders of Speech Commands' usual test where there are some, else every word.
case $recipe in *en-*) only=(--commands "examples/eight.toml") ;; *) only=() ;; esac
evaluate "$held/clips"
[ ${#only[@]} -eq 0 ] || evaluate "$held/clips" "${only[@]}"
last "$held/clips" "${only[@]}" --gain -20
last "$held/clips" "${only[@]}" --gain 10
last "$held/clips" "${only[@]}" --snr 10
last "$held/clips" "${only[@]}" --snr 10 --noise "$held/noise"
first "$held/clips" "${only[@]}" --stream 60 --count 600 --snr 15
first "$held/clips" "${only[@]}" --stream 60 --count 600 --snr 15 --noise "$held/noise"
first "$held/speech" --running
echo "--- 5 s of speech, heard whole, on one thread"
python - "$model" "$held/speech" <<'PYTHON'
import statistics, sys, time
from pathlib import Path
import kouling
from kouling import audio

recognizer = kouling.load(sys.argv[1])
samples = audio.read(next(file for file in sorted(Path(sys.argv[2]).rglob("*.wav")) if file.stat().st_size > 2 * 80000))
times = []
for _ in range(50):
    start = time.perf_counter()
    recognizer.reset()
    recognizer.accept(samples[:80000])
    recognizer.finish()
    times.append(1e3 * (time.perf_counter() - start))
print(f"median {statistics.median(times):.1f} ms, slowest {max(times):.1f} ms of 50")
PYTHON
