#!/usr/bin/env bash
# How well words are heard that `kouling teach` knows from their text alone, on recordings of people. Each word by itself:
# its recall at the threshold that allows so many false alarms in an hour of speech that nothing was trained on.
#   recipes/own-words/figures.sh DATA OUT [SIZE] [PER_HOUR]     DATA: folder of the tars; OUT: for the model
set -euo pipefail
data=$1 out=$2 size=${3:-base} rate=${4:-0.5}
here=$(dirname "$0")
kouling teach "$here/three.toml" -o "$out" --size "$size"
speech=$out/held
[ -d "$speech/speech" ] || kouling train "$here/../en-commands/recipe.toml" --data "$data" --validation "$speech"
for word in computer jarvis smart_mirror; do
    sed -n "/^language/p; /name = \"$word\"/,/^$/p" "$here/three.toml" | sed 's/^name/[[command]]\nname/' > "$out/$word.toml"
    echo "--- kouling calibrate $word.toml --model $(basename "$out") --data wakewords.tar --speech VALIDATION/speech --false-alarms-per-hour $rate --unproven"
    kouling calibrate "$out/$word.toml" --model "$out" --data "$data/wakewords.tar" --speech "$speech/speech" \
        --false-alarms-per-hour "$rate" --unproven -o "$out/$word.calibrated.toml"
done
