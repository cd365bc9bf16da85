#!/usr/bin/env bash
# How well words are heard that `kouling teach` knows from their text alone, or from RECORDINGS recordings of each besides,
# on other recordings of people: all three with the thresholds that teach chose, and each by itself at the threshold that
# allows PER_HOUR false alarms in an hour of speech that nothing was trained on.
#   recipes/own-words/figures.sh DATA OUT [RECORDINGS] [SIZE] [PER_HOUR]     DATA: folder of the tars; OUT: for the model
set -euo pipefail
data=$1 out=$2 count=${3:-0} size=${4:-small} rate=${5:-0.5}
here=$(dirname "$0")
clips=$data/wakewords.tar learned=()
if [ "$count" -gt 0 ]; then
    python "$here/split.py" "$clips" "$count" "$out/clips"
    clips=$out/clips/heard learned=(--recordings "$out/clips/given")
fi
kouling teach "$here/three.toml" -o "$out" --size "$size" "${learned[@]}"
speech=$out/held
[ -d "$speech/speech" ] || kouling train "$here/../en-commands-large/recipe.toml" --data "$data" --validation "$speech"
echo "--- kouling evaluate WAKEWORDS --model $(basename "$out"); kouling evaluate VALIDATION/speech --running"
kouling evaluate "$clips" --model "$out"
kouling evaluate "$speech/speech" --model "$out" --running
for word in computer jarvis smart_mirror; do
    sed -n "/^language/p; /name = \"$word\"/,/^$/p" "$here/three.toml" | sed 's/^name/[[command]]\nname/' > "$out/$word.toml"
    echo "--- kouling calibrate $word.toml --model $(basename "$out") --data WAKEWORDS --speech VALIDATION/speech --false-alarms-per-hour $rate --unproven"
    kouling calibrate "$out/$word.toml" --model "$out" --data "$clips" --speech "$speech/speech" \
        --false-alarms-per-hour "$rate" --unproven -o "$out/$word.calibrated.toml"
done
