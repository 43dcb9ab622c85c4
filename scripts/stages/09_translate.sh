#!/usr/bin/env bash
# Purpose: translates the test part with the teacher and every student, or the one named.
# Inputs:  $WORK_DIR/bin, $WORK_DIR/teacher/averaged.pt, $WORK_DIR/students/NAME/averaged.pt
# Outputs: $WORK_DIR/translations/NAME.{log,pieces,LANG}
# Example: bash scripts/stages/09_translate.sh configs/demo-en-cs.env teacher
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

# translate NAME CHECKPOINT
translate() {
    translate_step "$1" "$WORK_DIR/bin" test "$2" "$BEAM" "$TRANSLATE_MAX_TOKENS" \
        "$WORK_DIR/prepared/test/text.$SOURCE_LANG" "$WORK_DIR/translations/$1"
}

translate_student() { translate "$STUDENT_NAME" "$WORK_DIR/students/$STUDENT_NAME/averaged.pt"; }

if [[ -z $SYSTEM || $SYSTEM == teacher ]]; then translate teacher "$WORK_DIR/teacher/averaged.pt"; fi
for_each_student translate_student
