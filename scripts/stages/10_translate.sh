#!/usr/bin/env bash
# Purpose: translates the test part with the teacher and every student, or the one named, and then a sample of it three times,
#          for the speed.
# Inputs:  $WORK_DIR/bin, bin-1000, ... as rows say; the checkpoints of teacher and students
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
    # Every kind of data has the test part of the corpus: the student's vocabulary alone makes a difference.
    translate "$STUDENT_NAME" "$(student_checkpoint)" "$(data_folder "gold${STUDENT_PIECES:+@$STUDENT_PIECES}")"
}

if [[ -z $SYSTEM || $SYSTEM == teacher ]]; then translate teacher "$WORK_DIR/teacher/averaged.pt" "$WORK_DIR/bin"; fi
for_each_student translate_student
