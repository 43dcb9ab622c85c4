#!/usr/bin/env bash
# Purpose: averages the last checkpoints of each student (stage 04 averages the teacher, because stage 05 needs it).
# Inputs:  $WORK_DIR/students/NAME/checkpoints
# Outputs: $WORK_DIR/students/NAME/averaged.pt
# Example: bash scripts/stages/08_average.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

average_student() {
    local folder=$WORK_DIR/students/$STUDENT_NAME
    average_step "average-$STUDENT_NAME" "$folder/checkpoints" "$folder/averaged.pt" STUDENT
}

for_each_student average_student
