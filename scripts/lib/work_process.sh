#!/usr/bin/env bash
# Purpose: one process of nbest, cache-teacher or kd-data score under torchrun or srun; its rank says which shard is its own.
# Inputs:  the launcher's variables (rank.sh); the command.
# Outputs: those of the command.
# Example: srun --ntasks-per-node 8 bash scripts/lib/work_process.sh fairseq-compress nbest ...
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/process.sh"
# shellcheck source=scripts/lib/rank.sh
source "$LIB/rank.sh"

# A launcher that is killed leaves its workers behind, which would go on writing.
exec "${DIE_WITH_PARENT[@]}" "$@"
