#!/usr/bin/env bash
# Purpose: stores the teacher's distribution for each target token: the K most probable entries and the tail mass. Students with
#          word_level_kd@K train from this cache, without the teacher. One cache for each corpus and K.
# Inputs:  $WORK_DIR/bin, bin-kd, ... (the data of the rows); $WORK_DIR/teacher/averaged.pt
# Outputs: $WORK_DIR/cache/KIND-K/{train,valid}
# Example: bash scripts/stages/06_cache_teacher.sh configs/multi30k-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

made=" "
cache_for_student() {
    local data output teacher=$WORK_DIR/teacher/averaged.pt
    output=$(cache_folder "$STUDENT_DATA" "$STUDENT_CACHE_K")
    if [[ -z $STUDENT_CACHE_K || $made == *" $output "* ]]; then return 0; fi
    made+="$output "
    data=$(data_folder "$STUDENT_DATA")
    work_arguments
    run_step "cache-$STUDENT_DATA-$STUDENT_CACHE_K" "$output" --in "$data" --in "$teacher" --folder --resume --log \
        "${MACHINE_ARGUMENTS[@]}" -- \
        "$FC_BIN/fairseq-compress" cache-teacher --checkpoint "$teacher" --teacher-data "$WORK_DIR/bin" \
        --source-lang "$SOURCE_LANG" --target-lang "$TARGET_LANG" --data "$data" --splits train valid --output @OUT@ \
        --top-k "$STUDENT_CACHE_K" --temperature "$KD_TEMPERATURE" --dtype "$CACHE_DTYPE" --precision "$SCORING_PRECISION" \
        --max-tokens "$CACHE_MAX_TOKENS"
}

for_each_student cache_for_student
[[ $made != " " ]] || say "skip cache-teacher (no student learns from a cache)"
