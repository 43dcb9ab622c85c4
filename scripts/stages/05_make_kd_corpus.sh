#!/usr/bin/env bash
# Purpose: makes the corpora for sequence-level distillation (arXiv:1606.07947): the teacher translates the training text once, and
#          each kind of data is selected from its n-best list. Skipped if no student uses such data.
# Inputs:  $WORK_DIR/prepared, $WORK_DIR/vocabulary, $WORK_DIR/encoded, $WORK_DIR/bin, $WORK_DIR/teacher/averaged.pt
# Outputs: $WORK_DIR/kd; $WORK_DIR/bin-kd, bin-both, bin-k-best, bin-interpolated, if a student uses them
# Example: bash scripts/stages/05_make_kd_corpus.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

list_kinds
if ! uses_kind kd both k-best interpolated; then
    say "skip make-kd-corpus (no student learns from it)"
    exit 0
fi

k=() # number of hypotheses of an n-best list to use
if ((KD_K_BEST > 0)); then k=(--k "$KD_K_BEST"); fi

nbest_steps
if drops_worst; then reverse_step; fi
if uses_kind kd both; then corpus_steps kd --mode best; fi
if uses_kind k-best; then corpus_steps k-best --mode k-best "${k[@]}"; fi
if uses_kind interpolated; then corpus_steps interpolated --mode interpolate --metric "$KD_INTERPOLATION" "${k[@]}"; fi
if uses_kind both; then
    run_step join-corpora "$WORK_DIR/bin-both" --in "$WORK_DIR/bin" --in "$WORK_DIR/bin-kd" --folder -- \
        bash "$LIB/join_corpora.sh" "$WORK_DIR/bin" "$WORK_DIR/bin-kd" @OUT@
fi
