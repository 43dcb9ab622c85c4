#!/usr/bin/env bash
# Purpose: scores each translation with sacreBLEU on detokenized text, and adds size, layers, speed and training metadata of the
#          system.
# Inputs:  $WORK_DIR/translations/NAME.LANG and NAME.log, $WORK_DIR/prepared/test, the averaged checkpoints, $WORK_DIR/exported
# Outputs: $WORK_DIR/translations/NAME.json
# Example: bash scripts/stages/12_score.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

score_student() {
    local facts=(
        role=student "criterion=$STUDENT_CRITERION" "data=$STUDENT_DATA" "seed=$STUDENT_SEED"
    )
    # The architecture and the updates of the last training are read from the checkpoint.
    if is_dual && ((DUAL_ALONE_UPDATE > 0)); then facts+=("updates_with_teacher=$(updates_of "train-$STUDENT_NAME")"); fi
    # The comparison in the report groups by "system" and shows the seconds per update.
    if [[ -n $BASELINE ]]; then
        facts+=("system=$STUDENT_SYSTEM" "seconds_per_update=$(pace_of "train-$STUDENT_NAME")")
    fi
    baseline_of_student
    score_step "$STUDENT_NAME" "$(student_checkpoint)" "$REPLY" "${facts[@]}"
}

if [[ -z $SYSTEM || $SYSTEM == teacher ]]; then
    score_step teacher "$WORK_DIR/teacher/averaged.pt" "" role=teacher criterion=label_smoothed_cross_entropy data=gold \
        "seed=$SEED"
fi
for_each_student score_student

# An exported model is tested against the baseline of its student.
score_export() {
    local facts=(role=exported "of=$EXPORT_OF" "seed=${STUDENT_SEED:-$SEED}") baseline=
    if [[ -n $BASELINE && -n $STUDENT_NAME ]]; then
        baseline_of_student
        baseline=$REPLY
        facts+=("system=$EXPORT_NAME")
    fi
    score_step "$EXPORT_NAME" "$(export_folder)" "$baseline" "${facts[@]}"
}
for_each_export score_export
