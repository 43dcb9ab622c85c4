#!/usr/bin/env bash
# Purpose: compares architectures of students on Multi30k at about equal bytes: dense, factorized and tensor-train embeddings,
#          low-rank layers, shared layers, bottlenecks, sparse layers, SSRU and average attention; all with word-level KD from one
#          teacher. BLEU, chrF2, parameters, multiply-adds and speed.
# Inputs:  further arguments go to run_all.sh. SEEDS="1 2 3": seeds of the students (default 1). JOBS: students that train
#          at a time (default: one for each core). LONG=1: 20,000 updates and three seeds, for a GPU. The text: bash data/download.sh multi30k
# Outputs: $WORK_DIR/report/report.md (default WORK_DIR: runs/architectures-multi30k-en-cs, with LONG=1 ...-long), which is printed
#          at the end. After an interruption the same command goes on.
# Example: SEEDS="1 2 3" bash scripts/experiments/architectures.sh
# shellcheck source=scripts/lib/experiment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/experiment.sh"

compare_students architectures-multi30k-en-cs "$@"
