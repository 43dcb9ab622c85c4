#!/usr/bin/env bash
# Purpose: compares student architectures of about equal size on Multi30k: dense, factorized and tensor-train embeddings, low-rank
#          layers, shared layers, bottlenecks, sparse layers, SSRU and average attention. All are trained with word-level KD from
#          one teacher. The report has BLEU, chrF2, parameters, multiply-adds and speed.
# Inputs:  the text of bash data/download.sh multi30k. Further arguments are passed to run_all.sh.
#          SEEDS="1 2 3": seeds of the students (default: 1). JOBS: number of students trained in parallel (default: the number of
#          cores). LONG=1: 20,000 updates and three seeds, for a GPU.
# Outputs: $WORK_DIR/report/report.md (default WORK_DIR: runs/architectures-multi30k-en-cs, with LONG=1 ...-long), which is printed
#          at the end. Repeat the command to resume an interrupted run.
# Example: SEEDS="1 2 3" bash scripts/experiments/architectures.sh
# shellcheck source=scripts/lib/experiment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/experiment.sh"

compare_students architectures-multi30k-en-cs "$@"
