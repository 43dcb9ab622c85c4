#!/usr/bin/env bash
# Purpose: one process of a training under torchrun or srun: passes the launcher's rank to fairseq-train.
# Inputs:  the launcher's variables (rank.sh); the command of the training with --distributed-world-size.
# Outputs: the outputs of the command.
# Example: torchrun --nproc_per_node 2 --no-python bash scripts/lib/train_process.sh fairseq-train DATA ...
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/process.sh"
# shellcheck source=scripts/lib/rank.sh
source "$LIB/rank.sh"

# If Slurm makes only one GPU visible to each process, its index is 0.
device=${LOCAL_RANK:?torchrun sets it}
if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
    IFS=, read -ra visible <<<"$CUDA_VISIBLE_DEVICES"
    device=$((device % ${#visible[@]}))
fi

# The processes of a killed launcher would continue to write.
exec "${DIE_WITH_PARENT[@]}" "$@" --distributed-rank "$RANK" --device-id "$device"
