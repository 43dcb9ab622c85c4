#!/usr/bin/env bash
# Purpose: quality against size on Multi30k: a teacher, a student with and without distillation, in float32, int8 (exported to ONNX
#          Runtime) and 4 bits (packed). Makes the first table and the picture of the README.
# Inputs:  further arguments go to run_all.sh. JOBS: students that train at a time (default: one for each core). The text:
#          bash data/download.sh multi30k
# Outputs: $WORK_DIR/report/report.{md,png,json} (default WORK_DIR: runs/sizes-multi30k-en-cs). An interrupted run resumes.
# Example: bash scripts/experiments/sizes.sh
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

bash "$ROOT/scripts/bootstrap.sh"
export WORK_DIR=${WORK_DIR:-$ROOT/runs/sizes-multi30k-en-cs}
config=$ROOT/configs/experiments/sizes-multi30k-en-cs.env
"${DIE_WITH_PARENT[@]}" bash "$ROOT/scripts/run_all.sh" "$config" "$@"

if [[ " $* " == *" --dry-run "* ]]; then DRY_RUN=1; fi
stage_begin "$config"

# four_bits NAME CHECKPOINT FACT...: packs a model with the plan int4, translates the test part and scores the result.
four_bits() {
    local packed=$WORK_DIR/packed/$1.safetensors
    run_step "pack-$1" "$packed" --in "$2" --in configs/plans/int4.yaml -- \
        "$FC_BIN/fairseq-compress" quantize --format packed --checkpoint "$2" --output @OUT@ --plan configs/plans/int4.yaml
    translate_step "$1" "$WORK_DIR/bin" test "$packed" "$BEAM" "$TRANSLATE_MAX_TOKENS" \
        "$WORK_DIR/prepared/test/text.$SOURCE_LANG" "$WORK_DIR/translations/$1"
    score_step "$1" "$packed" "" "${@:3}"
}

four_bits teacher-int4 "$WORK_DIR/teacher/averaged.pt" role=other "seed=$SEED"
four_bits student-word-kd-int4 "$WORK_DIR/students/student-word-kd/averaged.pt" role=other "seed=$SEED"

scores=()
for name in teacher teacher-int8 teacher-int4 student-baseline student-word-kd student-word-kd-int8 student-word-kd-int4; do
    scores+=("$WORK_DIR/translations/$name.json")
done
report_step "${scores[@]}"
