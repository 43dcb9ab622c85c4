#!/usr/bin/env bash
# Purpose: translates the test set with the teacher and all students, or with the named system only; then translates a sample of it
#          three times to measure the speed.
# Inputs:  $WORK_DIR/bin, bin-1000, ... (the vocabularies of the rows); the checkpoints of teacher and students
# Outputs: $WORK_DIR/translations/NAME.{log,pieces,LANG}
# Example: bash scripts/stages/10_translate.sh configs/demo-en-cs.env teacher
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

# translate NAME CHECKPOINT DATA
translate() {
    translate_step "$1" "$3" test "$2" "$BEAM" "$TRANSLATE_MAX_TOKENS" \
        "$WORK_DIR/prepared/test/text.$SOURCE_LANG" "$WORK_DIR/translations/$1"
}

translate_student() {
    VOCABULARY=$(vocabulary_folder "$STUDENT_PIECES")
    # The test set depends on the student's vocabulary only, not on its training data.
    translate "$STUDENT_NAME" "$(student_checkpoint)" "$(data_folder "gold${STUDENT_PIECES:+@$STUDENT_PIECES}")"
}

if [[ -z $SYSTEM || $SYSTEM == teacher ]]; then translate teacher "$WORK_DIR/teacher/averaged.pt" "$WORK_DIR/bin"; fi
for_each_student translate_student
