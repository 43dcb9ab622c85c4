#!/usr/bin/env bash
# Purpose: one process of nbest, cache-teacher or kd-data score under torchrun or srun; its rank selects its shard.
# Inputs:  the launcher's variables (rank.sh); the command.
# Outputs: the outputs of the command.
# Example: srun --ntasks-per-node 8 bash scripts/lib/work_process.sh fairseq-compress nbest ...
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/process.sh"
# shellcheck source=scripts/lib/rank.sh
source "$LIB/rank.sh"

# The processes of a killed launcher would continue to write.
exec "${DIE_WITH_PARENT[@]}" "$@"
