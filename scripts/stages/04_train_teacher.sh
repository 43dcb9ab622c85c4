#!/usr/bin/env bash
# Purpose: trains the teacher and averages its last checkpoints.
# Inputs:  $WORK_DIR/bin
# Outputs: $WORK_DIR/teacher/checkpoints, $WORK_DIR/teacher/averaged.pt, $WORK_DIR/logs/train-teacher.log
# Example: bash scripts/stages/04_train_teacher.sh configs/demo-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

train_command TEACHER "$WORK_DIR/bin" "$TEACHER_ARCH" label_smoothed_cross_entropy
train_step train-teacher "$WORK_DIR/teacher/checkpoints" --in "$WORK_DIR/bin"
average_step average-teacher "$WORK_DIR/teacher/checkpoints" "$WORK_DIR/teacher/averaged.pt" TEACHER
