#!/usr/bin/env bash
# Purpose: one process of a training under torchrun or srun: tells fairseq-train its rank, which only the launcher knows.
# Inputs:  the launcher's variables (rank.sh); the command of the training with --distributed-world-size.
# Outputs: those of the command.
# Example: torchrun --nproc_per_node 2 --no-python bash scripts/lib/train_process.sh fairseq-train DATA ...
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/process.sh"
# shellcheck source=scripts/lib/rank.sh
source "$LIB/rank.sh"

# Slurm may show each process one GPU, its own, which then is the first that it sees.
device=${LOCAL_RANK:?torchrun sets it}
if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
    IFS=, read -ra visible <<<"$CUDA_VISIBLE_DEVICES"
    device=$((device % ${#visible[@]}))
fi

# A launcher that is killed leaves its workers behind, which would go on writing.
exec "${DIE_WITH_PARENT[@]}" "$@" --distributed-rank "$RANK" --device-id "$device"
