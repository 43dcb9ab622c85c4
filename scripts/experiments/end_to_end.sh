#!/usr/bin/env bash
# Purpose: from raw text to a translation model for a CPU: a teacher with 6+6 layers and width 512, a student distilled from it, the
#          student exported in int8 with --runtime auto, and one table: bytes, BLEU, chrF2, latency, sentences/s.
# Inputs:  the text of bash data/download.sh multi30k. LONG=1: 15,000 and 30,000 updates, for a GPU. Run it on an idle machine:
#          it measures speed.
# Outputs: $WORK_DIR/end_to_end.md (default WORK_DIR: runs/end-to-end-multi30k-en-cs, with LONG=1 ...-long), printed at the
#          end, and $WORK_DIR/exported/student-int8, the model. Repeat the command to resume an interrupted run.
# Example: bash scripts/experiments/end_to_end.sh
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

bash "$ROOT/scripts/bootstrap.sh"
if [[ ${LONG:-0} == 1 ]]; then suffix=-long; else suffix=; fi
export WORK_DIR=${WORK_DIR:-$ROOT/runs/end-to-end-multi30k-en-cs$suffix}
config=$ROOT/configs/experiments/end-to-end-multi30k-en-cs.env
"${DIE_WITH_PARENT[@]}" bash "$ROOT/scripts/run_all.sh" "$config" "$@"

if [[ " $* " == *" --dry-run "* ]]; then DRY_RUN=1; fi
stage_begin "$config"
text=$WORK_DIR/prepared exported=$WORK_DIR/exported/student-int8 hypothesis=$WORK_DIR/translations/student-int8.$TARGET_LANG

for system in teacher students/student; do
    run_step "materialize-${system##*/}" "$WORK_DIR/$system/plain.pt" --in "$WORK_DIR/$system/averaged.pt" -- \
        "$FC_BIN/fairseq-compress" materialize --checkpoint "$WORK_DIR/$system/averaged.pt" --output @OUT@
done

unset OMP_WAIT_POLICY # on an idle machine fairseq is fastest with busy-waiting threads
run_step end-to-end "$WORK_DIR/end_to_end.md" --in "$hypothesis" --in "$exported" --in "$WORK_DIR/teacher/plain.pt" -- \
    "$FC_BIN/python" benchmarks/end_to_end.py --teacher "$WORK_DIR/teacher/plain.pt" \
    --student "$WORK_DIR/students/student/plain.pt" --exported "$exported" --data "$WORK_DIR/bin" --text "$text/test/text.$SOURCE_LANG" \
    --reference "$text/test/text.$TARGET_LANG" --beam "$BEAM" --max-len-a "$MAX_LEN_A" --max-len-b "$MAX_LEN_B" \
    --hypotheses "$WORK_DIR/translations/"{teacher,student,student-int8}".$TARGET_LANG" --output @OUT@
if [[ $DRY_RUN == 0 ]]; then
    cat "$WORK_DIR/end_to_end.md"
    say "table: $WORK_DIR/end_to_end.md"
fi
