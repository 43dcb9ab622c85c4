# shellcheck shell=bash
# Purpose: parses and checks the rows of EXPORT.
# Inputs:  EXPORT, STUDENTS, SYSTEM.
# Outputs: the EXPORT_* variables of a row, and the STUDENT_* variables of its student; problems for check_config.
# Example: for_each_export export_system

# parse_export ROW: splits "NAME SYSTEM [arguments of fairseq-compress export]" into EXPORT_NAME, EXPORT_OF and EXPORT_ARGUMENTS. If
# SYSTEM is a student, also sets its STUDENT_* variables.
# shellcheck disable=SC2034 # stage 11 reads the arguments
parse_export() {
    local words row
    read -ra words <<<"$1"
    EXPORT_NAME=${words[0]:-} EXPORT_OF=${words[1]:-} EXPORT_ARGUMENTS=("${words[@]:2}")
    for row in "${STUDENTS[@]}"; do
        parse_student "$row"
        [[ $STUDENT_NAME != "$EXPORT_OF" ]] || return 0
    done
    parse_student ""
}

# for_each_export FUNCTION: calls it with EXPORT_* set, for all rows or only for the row named SYSTEM.
for_each_export() {
    local row
    for row in "${EXPORT[@]}"; do
        parse_export "$row"
        if [[ -z $SYSTEM || $SYSTEM == "$EXPORT_NAME" ]]; then "$1"; fi
    done
}

# export_folder: prints the model directory of the row.
export_folder() { echo "$WORK_DIR/exported/$EXPORT_NAME"; }

# check_exports NAME...: adds problems of the table for check_config; NAME...: the trained systems.
check_exports() {
    local row seen=" $* "
    for row in "${EXPORT[@]}"; do
        parse_export "$row"
        [[ $EXPORT_NAME =~ ^[A-Za-z0-9._@-]+$ ]] ||
            problem "EXPORT name" "must have only letters, digits, dots, dashes and @" "$EXPORT_NAME"
        [[ $seen != *" $EXPORT_NAME "* ]] ||
            problem "EXPORT name" "must occur once and be no name in STUDENTS, nor teacher" "$EXPORT_NAME"
        seen+="$EXPORT_NAME "
        check_choice "EXPORT $EXPORT_NAME system" "$EXPORT_OF" "$@"
    done
    [[ -z $SYSTEM || $seen == *" $SYSTEM "* ]] ||
        problem SYSTEM "must be teacher or a name in STUDENTS or EXPORT" "$SYSTEM"
}
