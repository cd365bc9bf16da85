#!/usr/bin/env bash
# Each method alone, and together: what en-base comes to by it, and zh-commands-large, which is as large and knows Chinese.
# The two tables of README.md. On two cores an hour; what is done is not done again.
#   recipes/methods.sh DATA EN ZH OUT     DATA: folder of the recipes' tars; OUT: for the models
#                                         EN, ZH: as for `python -m bench.front`
set -euo pipefail
data=$1 english=$2 mandarin=$3 out=$4
carry_out() { # MODEL RECIPE TEACHER CANDIDATE SIZE NAME
    [ -f "$out/$6/model.kouling" ] && return
    kouling compress "$1" --memory "$5" --candidate "$4" --max-loss 100 --epochs 8 --recipe "$2" --data "$data" --teacher "$3" \
        --keep-scenes "$out/scenes" --workers 1 -o "$out/$6"
}
models=()
each() { # MODEL RECIPE TEACHER
    kouling export "$1" --target engine --weights float -o "$out/$1-float.kouling"
    carry_out "$1" "$2" "$3" whole-int4-bfloat16 1.1MB "$1-int4"
    carry_out "$1" "$2" "$3" pruned-50-int8-bfloat16 1MB "$1-pruned"
    carry_out "$out/$1-pruned" "$2" "$3" whole-int4-bfloat16 600KB "$1-pruned-int4"
    models+=("$out/$1-float.kouling" "$1" "$out/$1-int4" "$out/$1-pruned" "$out/$1-pruned-int4")
}
mkdir -p "$out"
each en-base recipes/compress.toml en-commands-large
each zh-commands-large recipes/compress-zh.toml zh-commands-large
python -m bench.front "$english" "$mandarin" "${models[@]}"
