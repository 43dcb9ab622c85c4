#!/usr/bin/env bash
# Purpose: translates the test part with the teacher and every student, or the one named.
# Inputs:  $WORK_DIR/bin, $WORK_DIR/teacher/averaged.pt, $WORK_DIR/students/NAME/averaged.pt
# Outputs: $WORK_DIR/translations/NAME.{log,pieces,LANG}
# Example: bash scripts/stages/08_translate.sh configs/demo-en-cs.env teacher
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

# The speed belongs to the machine that translated, so its name is kept with the time.
note_hardware() { printf '# hardware: %s\n' "$(hardware_name)" >>"$1"; }

# translate NAME CHECKPOINT
translate() {
    local prefix=$WORK_DIR/translations/$1
    generate_command "$WORK_DIR/bin" test "$2" "$BEAM" "$TRANSLATE_MAX_TOKENS"
    run_step "translate-$1" "$prefix.log" --in "$WORK_DIR/bin" --in "$2" --stdout --check note_hardware -- "${COMMAND[@]}"
    collect_step "$1" "$prefix.log" "$WORK_DIR/prepared/test/text.$SOURCE_LANG" "$prefix.$TARGET_LANG"
}

translate_student() { translate "$STUDENT_NAME" "$WORK_DIR/students/$STUDENT_NAME/averaged.pt"; }

if [[ -z $SYSTEM || $SYSTEM == teacher ]]; then translate teacher "$WORK_DIR/teacher/averaged.pt"; fi
for_each_student translate_student
