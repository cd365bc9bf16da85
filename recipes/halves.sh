#!/usr/bin/env bash
# Thresholds found on one half of the held-out speech, false alarms counted on the other, both ways round.
#   recipes/halves.sh VALIDATION MODEL...     VALIDATION: made by `kouling train RECIPE --data DATA --validation VALIDATION`;
#   RATE=0.5 (false alarms an hour)           MODEL: installed name or path
set -euo pipefail
held=$(realpath "$1")
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
half=0
for file in "$held"/speech/*/*; do  # every second one, in the order of their names
    mkdir -p "$work/speech-$half/held"
    ln -s "$file" "$work/speech-$half/held/"
    half=$((1 - half))
done
for model in "$@"; do
    python - "$model" > "$work/words.toml" <<'PYTHON'
import sys
import kouling

for command in kouling.load(sys.argv[1]).command_set.commands:
    print(f'[[command]]\nname = "{command.name}"\nphrases = ["{command.name}"]')
PYTHON
    for half in 0 1; do
        other=$((1 - half))
        echo "--- $model: kouling calibrate --speech HALF-$half --unproven, kouling evaluate HALF-$other --running"
        kouling calibrate "$work/words.toml" --model "$model" --data "$held/clips" --speech "$work/speech-$half" \
            --false-alarms-per-hour "${RATE:-0.5}" --unproven -o "$work/set.toml" | grep -v "^written to" &&
            kouling evaluate "$work/speech-$other" --running --model "$model" --commands "$work/set.toml" | sed -n 1p ||
            true  # a rate that cannot be had has said so
    done
done
