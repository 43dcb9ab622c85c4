#!/usr/bin/env bash
# Purpose: one process of a training under torchrun: tells fairseq-train its rank, which only torchrun knows.
# Inputs:  RANK and LOCAL_RANK, set by torchrun; the command of the training with --distributed-world-size.
# Outputs: those of the command.
# Example: torchrun --nproc_per_node 2 --no-python bash scripts/lib/train_process.sh fairseq-train DATA ...
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/process.sh"

# A launcher that is killed leaves its workers behind, which would go on writing.
exec "${DIE_WITH_PARENT[@]}" "$@" --distributed-rank "${RANK:?torchrun sets it}" --device-id "${LOCAL_RANK:?torchrun sets it}"
