#!/usr/bin/env bash
# Purpose: concatenates two binarized corpora in one data folder: the splits of the first, and the training split of the second as
#          train1, which fairseq appends to train. Files are hard links if the disk supports them.
# Inputs:  FIRST, SECOND: folders made by fairseq-preprocess with the same dictionary.
# Outputs: OUTPUT, a folder.
# Example: bash scripts/lib/join_corpora.sh runs/demo-en-cs/bin runs/demo-en-cs/bin-kd runs/demo-en-cs/bin-both
set -euo pipefail

first=$1 second=$2 output=$3
place() { cp --link "$1" "$2" 2>/dev/null || cp "$1" "$2"; }

mkdir -p "$output"
for file in "$first"/*; do place "$file" "$output/${file##*/}"; done
for file in "$second"/train.*; do place "$file" "$output/train1.${file##*/train.}"; done
