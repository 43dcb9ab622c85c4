#!/usr/bin/env bash
# Purpose: copies a folder, then runs a command that adds files to the copy. Files are hard links if the disk supports them.
# Inputs:  FOLDER; COMMAND..., which adds files to OUTPUT and does not change existing files.
# Outputs: OUTPUT, a folder.
# Example: bash scripts/lib/extend_folder.sh bin-1-best bin-k-best fairseq-compress kd-data binarize --data bin-k-best ...
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/process.sh"

folder=$1 output=$2
shift 2
mkdir -p "$output"
for file in "$folder"/*; do cp --link "$file" "$output/" 2>/dev/null || cp "$file" "$output/"; done
"${DIE_WITH_PARENT[@]}" "$@"
