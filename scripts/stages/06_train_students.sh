#!/usr/bin/env bash
# Purpose: trains the students of the table STUDENTS, or the one named.
# Inputs:  $WORK_DIR/bin, bin-kd, bin-both as each row says; $WORK_DIR/teacher/averaged.pt for word_level_kd
# Outputs: $WORK_DIR/students/NAME/checkpoints, $WORK_DIR/logs/train-NAME.log
# Example: bash scripts/stages/06_train_students.sh configs/demo-en-cs.env student-word-kd
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

train_student() {
    local data inputs
    data=$(data_folder "$STUDENT_DATA")
    inputs=(--in "$data")
    train_command STUDENT "$data" "$STUDENT_ARCH" "$STUDENT_CRITERION"
    # fairseq's own default, -1, fails as soon as there is a second training part.
    if [[ $STUDENT_DATA == both ]]; then COMMAND+=(--upsample-primary 1); fi
    if [[ $STUDENT_CRITERION == word_level_kd ]]; then
        # The dictionaries' folder that the teacher's checkpoint names is no longer there when the work directory was moved.
        COMMAND+=(
            --teacher-path "$WORK_DIR/teacher/averaged.pt" --teacher-data "$WORK_DIR/bin"
            --kd-temperature "$KD_TEMPERATURE" --kd-alpha "$KD_ALPHA"
        )
        inputs+=(--in "$WORK_DIR/teacher/averaged.pt")
    fi
    COMMAND+=("${STUDENT_ARGUMENTS[@]}")
    train_step "train-$STUDENT_NAME" "$WORK_DIR/students/$STUDENT_NAME/checkpoints" "${inputs[@]}"
}

for_each_student train_student
