#!/usr/bin/env bash
# Purpose: cuts files of equally many lines at the same places, so that part K of each has the same sentences.
# Inputs:  PARTS, a number up to that of lines; FILE..., each named PREFIX.LANG.
# Outputs: OUTPUT/part0.LANG, OUTPUT/part1.LANG, ... one after the other they are the whole file.
# Example: bash scripts/lib/split_lines.sh 4 runs/demo-en-cs/kd/parts runs/demo-en-cs/encoded/train.{en,cs}
set -euo pipefail

parts=$1 output=$2
shift 2
mkdir -p "$output"
for file in "$@"; do
    lines=$(awk "END { print NR }" "$file")
    if ((parts > lines)); then
        echo "split_lines.sh: error: KD_SHARDS must not be over the number of lines, got $parts parts for $file with $lines" >&2
        exit 1
    fi
    awk -v parts="$parts" -v lines="$lines" -v output="$output" -v lang="${file##*.}" '
        { part = int((NR - 1) * parts / lines); print > (output "/part" part "." lang) }
    ' "$file"
done
