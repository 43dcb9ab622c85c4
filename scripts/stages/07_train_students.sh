#!/usr/bin/env bash
# Purpose: trains the students of the table STUDENTS, JOBS in parallel, or only the named student.
# Inputs:  $WORK_DIR/bin, bin-kd, ... (the data of the rows); $WORK_DIR/teacher/averaged.pt for word_level_kd and hidden_state_kd,
#          $WORK_DIR/cache for word_level_kd@K and hidden_state_kd@K; $WORK_DIR/dual-1000 ... for dual_vocab_kd
# Outputs: $WORK_DIR/students/NAME/checkpoints, $WORK_DIR/logs/train-NAME.log
# Example: bash scripts/stages/07_train_students.sh configs/demo-en-cs.env student-word-kd
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
stage_begin "$@"

train_student() {
    local data inputs index
    data=$(data_folder "$STUDENT_DATA")
    if is_dual; then data=$WORK_DIR/dual-$STUDENT_PIECES; fi
    inputs=(--in "$data")
    train_command STUDENT "$data" "$STUDENT_ARCH" "$STUDENT_LOSS"
    # fairseq's default, -1, fails if the corpus has a second part (train1).
    if [[ $STUDENT_DATA == both ]]; then COMMAND+=(--upsample-primary 1); fi
    case $STUDENT_LOSS in
        word_level_kd) teacher_arguments && COMMAND+=(--kd-alpha "$KD_ALPHA") ;;
        hidden_state_kd) teacher_arguments ;; # the row sets the weights of its terms
        dual_vocab_kd) dual_arguments ;;
        sequence_level_kd) COMMAND+=(--sequence-kd-temperature "$SEQUENCE_KD_TEMPERATURE") ;;
    esac
    COMMAND+=("${STUDENT_ARGUMENTS[@]}")
    for index in "${!STUDENT_ARGUMENTS[@]}"; do
        case ${STUDENT_ARGUMENTS[index]} in
            --finetune-from-model | --compression-plan | --init-from-teacher) inputs+=(--in "${STUDENT_ARGUMENTS[index + 1]}") ;;
        esac
    done
    train_step "train-$STUDENT_NAME" "$WORK_DIR/students/$STUDENT_NAME/checkpoints" "${inputs[@]}"
}

# teacher_arguments: arguments for the online teacher or for its cache. With a cache the teacher's checkpoint is named only so that
# its checksum can be compared.
teacher_arguments() {
    local cache
    COMMAND+=(--teacher-path "$WORK_DIR/teacher/averaged.pt")
    inputs+=(--in "$WORK_DIR/teacher/averaged.pt")
    if [[ -n $STUDENT_CACHE_K ]]; then
        cache=$(cache_folder "$STUDENT_DATA" "$STUDENT_CACHE_K")
        COMMAND+=(--teacher-cache "$cache")
        inputs+=(--in "$cache")
    else
        # The data folder in the teacher's checkpoint is wrong if the work directory was moved.
        COMMAND+=(--teacher-data "$WORK_DIR/bin")
    fi
    COMMAND+=(--kd-temperature "$KD_TEMPERATURE")
}

# dual_arguments: the teacher of dual-vocabulary training: the trained one with an extended embedding table, or a new one.
dual_arguments() {
    COMMAND+=(--task dual_vocab_translation --p-mix "$DUAL_P_MIX")
    if [[ $DUAL_TEACHER == new ]]; then
        COMMAND+=(--dual-teacher-arch "$TEACHER_ARCH")
    else
        COMMAND+=(--dual-teacher-path "$WORK_DIR/teacher/averaged.pt" --dual-teacher-model "$WORK_DIR/vocabulary/spm.model"
            --dual-teacher-data "$WORK_DIR/bin")
        inputs+=(--in "$WORK_DIR/teacher/averaged.pt" --in "$WORK_DIR/vocabulary/spm.model")
    fi
}

# train_in_own_process: runs this stage for one student in the background; it is killed together with this process.
train_in_own_process() {
    if ((running == JOBS)); then wait_for_one; fi
    if ((failed == 0)); then
        "${DIE_WITH_PARENT[@]}" bash "$ROOT/scripts/stages/07_train_students.sh" "$CONFIG" "$STUDENT_NAME" 2>&1 |
            sed -u "s/^/$STUDENT_NAME: /" &
        running=$((running + 1))
    fi
}

wait_for_one() {
    wait -n || failed=1
    running=$((running - 1))
}

detect_device
resolve_jobs
if ((JOBS == 1 || DRY_RUN == 1)) || [[ -n $SYSTEM ]]; then
    for_each_student train_student
else
    export WORK_DIR RAW_DIR FC_BIN DEVICE
    running=0 failed=0
    for_each_student train_in_own_process
    while ((running > 0)); do wait_for_one; done
    ((failed == 0)) || die "a training failed, see above"
fi
