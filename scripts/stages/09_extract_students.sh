#!/usr/bin/env bash
# Purpose: extracts the students of dual-vocabulary training (dual_vocab_kd) from their averaged checkpoints. If DUAL_ALONE_UPDATE
#          is over 0, continues their training without the teacher. Does nothing for other students.
# Inputs:  $WORK_DIR/students/NAME/averaged.pt, $WORK_DIR/dual-1000 ...; $WORK_DIR/bin-1000 ... for the training without the teacher
# Outputs: $WORK_DIR/students/NAME/student, a folder with student.pt and its dictionaries; $WORK_DIR/students/NAME/alone.pt
# Example: bash scripts/stages/09_extract_students.sh configs/experiments/dual-vocabulary-multi30k-en-cs.env
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

extract_student() {
    local folder=$WORK_DIR/students/$STUDENT_NAME dictionary=$WORK_DIR/dual-$STUDENT_PIECES/dict.student.txt
    is_dual || return 0
    run_step "extract-$STUDENT_NAME" "$folder/student" --in "$folder/averaged.pt" --in "$dictionary" --folder -- \
        "$FC_BIN/fairseq-compress" extract-student --checkpoint "$folder/averaged.pt" --dictionary "$dictionary" \
        --output @OUT@/student.pt
    if ((DUAL_ALONE_UPDATE > 0)); then train_alone "$folder"; fi
}

# train_alone FOLDER
train_alone() {
    local data student=$1/student/student.pt
    # shellcheck disable=SC2034 # train_command reads them by their names
    local STUDENT_MAX_UPDATE=$DUAL_ALONE_UPDATE STUDENT_MAX_EPOCH=0
    data=$(data_folder "$STUDENT_DATA")
    train_command STUDENT "$data" "$STUDENT_ARCH" fused_label_smoothed_cross_entropy
    arguments_alone
    COMMAND+=(--finetune-from-model "$student")
    train_step "train-$STUDENT_NAME-alone" "$1/alone" --in "$data" --in "$student"
    average_step "average-$STUDENT_NAME-alone" "$1/alone" "$1/alone.pt" STUDENT
}

# arguments_alone: the arguments of the row without the options of joint training, each of which takes one value.
arguments_alone() {
    local argument skip=0
    for argument in "${STUDENT_ARGUMENTS[@]}"; do
        if ((skip > 0)); then skip=0 && continue; fi
        case ${argument%%=*} in
            --p-mix | --mix-sides | --dual-teacher-* | --student-embeddings | --cross-entropy-weight | --projection-* | \
                --layer-map | --word-kd-weight | --init-*) [[ $argument == *=* ]] || skip=1 ;; # the next word is its value
            *) COMMAND+=("$argument") ;;
        esac
    done
}

for_each_student extract_student
