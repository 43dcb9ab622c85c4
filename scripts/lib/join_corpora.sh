#!/usr/bin/env bash
# Purpose: one data folder of two corpora: the first one's splits, and the second one's training part as train1, which
#          fairseq joins to train. The files are hard links where the disk has them.
# Inputs:  FIRST, SECOND: folders made by fairseq-preprocess with the same dictionary.
# Outputs: OUTPUT, a folder.
# Example: bash scripts/lib/join_corpora.sh runs/demo-en-cs/bin runs/demo-en-cs/bin-kd runs/demo-en-cs/bin-both
set -euo pipefail

first=$1 second=$2 output=$3
place() { cp --link "$1" "$2" 2>/dev/null || cp "$1" "$2"; }

mkdir -p "$output"
for file in "$first"/*; do place "$file" "$output/${file##*/}"; done
for file in "$second"/train.*; do place "$file" "$output/train1.${file##*/train.}"; done
