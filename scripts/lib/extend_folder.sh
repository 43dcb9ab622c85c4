#!/usr/bin/env bash
# Purpose: a copy of a folder to which a command adds files. The copied files are hard links where the disk has them.
# Inputs:  FOLDER; COMMAND..., which writes into OUTPUT and leaves what is there as it is.
# Outputs: OUTPUT, a folder.
# Example: bash scripts/lib/extend_folder.sh bin-1-best bin-k-best fairseq-compress kd-data binarize --data bin-k-best ...
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/process.sh"

folder=$1 output=$2
shift 2
mkdir -p "$output"
for file in "$folder"/*; do cp --link "$file" "$output/" 2>/dev/null || cp "$file" "$output/"; done
"${DIE_WITH_PARENT[@]}" "$@"
