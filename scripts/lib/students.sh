# shellcheck shell=bash
# Purpose: parses and checks the rows of STUDENTS, and lists the data and caches that they need.
# Inputs:  STUDENTS, SYSTEM and the settings of distillation.
# Outputs: the STUDENT_* variables of a row; the folders of its data and vocabulary; problems for check_config.
# Example: for_each_student train_student

# The training corpora of students, see configs/defaults.env.
readonly DATA_KINDS=(gold kd both k-best interpolated)

# parse_student ROW: splits "NAME ARCH DATA CRITERION [arguments]" into STUDENT_NAME, _ARCH, _DATA, _CRITERION, _ARGUMENTS.
# _PIECES is the vocabulary size in data such as gold@1000 (empty: VOCAB_SIZE). word_level_kd@8, a cache with 8 entries for each
# token, sets _LOSS (word_level_kd) and _CACHE_K (8). _SEED is the seed in the arguments, or SEED. Rows NAME.SEED are the seeds
# of one system, _SYSTEM.
# shellcheck disable=SC2034,SC2153 # the stages read them; SEED is a setting
parse_student() {
    local words index
    STUDENT_ROW=$1
    read -ra words <<<"$1"
    STUDENT_NAME=${words[0]:-} STUDENT_ARCH=${words[1]:-} STUDENT_DATA=${words[2]:-} STUDENT_CRITERION=${words[3]:-}
    STUDENT_ARGUMENTS=("${words[@]:4}")
    STUDENT_PIECES=
    if [[ $STUDENT_DATA == *@* ]]; then STUDENT_PIECES=${STUDENT_DATA#*@}; fi
    STUDENT_LOSS=${STUDENT_CRITERION%%@*} STUDENT_CACHE_K=
    if [[ $STUDENT_CRITERION == *@* ]]; then STUDENT_CACHE_K=${STUDENT_CRITERION#*@}; fi
    STUDENT_SEED=$SEED
    for index in "${!STUDENT_ARGUMENTS[@]}"; do
        if [[ ${STUDENT_ARGUMENTS[index]} == --seed ]]; then STUDENT_SEED=${STUDENT_ARGUMENTS[index + 1]:-}; fi
    done
    STUDENT_SYSTEM=${STUDENT_NAME%".$STUDENT_SEED"}
}

# for_each_student FUNCTION: calls it with STUDENT_* set, for all rows or only for the row named SYSTEM.
for_each_student() {
    local row
    for row in "${STUDENTS[@]}"; do
        parse_student "$row"
        if [[ -z $SYSTEM || $SYSTEM == "$STUDENT_NAME" ]]; then "$1"; fi
    done
}

# data_folder KIND: prints the folder of the binarized corpus.
data_folder() {
    case $1 in
        gold) echo "$WORK_DIR/bin" ;;
        *@*) echo "$WORK_DIR/bin-${1#*@}" ;;
        *) echo "$WORK_DIR/bin-$1" ;;
    esac
}

# vocabulary_folder PIECES: prints the folder of the sentencepiece model and dictionary (default: VOCAB_SIZE).
vocabulary_folder() { echo "$WORK_DIR/vocabulary${1:+-$1}"; }

# is_dual: the student of the row is trained jointly with a teacher with another vocabulary.
is_dual() { [[ $STUDENT_LOSS == dual_vocab_kd ]]; }

# student_checkpoint: prints the final checkpoint of the student of the row.
student_checkpoint() {
    local folder=$WORK_DIR/students/$STUDENT_NAME
    if ! is_dual; then
        echo "$folder/averaged.pt"
    elif ((DUAL_ALONE_UPDATE > 0)); then
        echo "$folder/alone.pt"
    else
        echo "$folder/student/student.pt"
    fi
}

# list_sizes: sets SIZES to the unique vocabulary sizes in the rows, and DUAL_SIZES to the sizes in rows with dual_vocab_kd.
list_sizes() {
    SIZES=() DUAL_SIZES=()
    # shellcheck disable=SC2329 # for_each_student calls it
    add_size() {
        if [[ -n $STUDENT_PIECES && " ${SIZES[*]} " != *" $STUDENT_PIECES "* ]]; then SIZES+=("$STUDENT_PIECES"); fi
        if is_dual && [[ " ${DUAL_SIZES[*]} " != *" $STUDENT_PIECES "* ]]; then DUAL_SIZES+=("$STUDENT_PIECES"); fi
    }
    for_each_student add_size
}

# baseline_system: prints the baseline of the current row; for NAME@GROUP it is BASELINE@GROUP.
baseline_system() {
    if [[ $STUDENT_SYSTEM == *@* ]]; then echo "$BASELINE@${STUDENT_SYSTEM#*@}"; else echo "$BASELINE"; fi
}

# baseline_of_student: sets REPLY to the name of the baseline with the same seed as the current row; empty if the row is the
# baseline, or if BASELINE is not set. Restores the STUDENT_* variables.
baseline_of_student() {
    local baseline seed=$STUDENT_SEED current=$STUDENT_ROW row found=
    baseline=$(baseline_system)
    if [[ -n $BASELINE && $STUDENT_SYSTEM != "$baseline" ]]; then
        for row in "${STUDENTS[@]}"; do
            parse_student "$row"
            if [[ $STUDENT_SYSTEM/$STUDENT_SEED == "$baseline/$seed" ]]; then found=$STUDENT_NAME; fi
        done
        parse_student "$current"
    fi
    REPLY=$found
}

# cache_folder KIND K: prints the folder of the teacher's cache for this corpus, with K entries for each token.
cache_folder() { echo "$WORK_DIR/cache/$1-$2"; }

# list_kinds: sets KINDS to the training corpora of the students, separated by spaces.
list_kinds() {
    KINDS=" "
    # shellcheck disable=SC2329 # for_each_student calls it
    add_kind() { KINDS+="$STUDENT_DATA "; }
    for_each_student add_kind
}

# uses_kind KIND...: at least one of them is in KINDS.
uses_kind() {
    local kind
    for kind in "$@"; do
        if [[ $KINDS == *" $kind "* ]]; then return 0; fi
    done
    return 1
}

# check_students: adds problems of the table for check_config.
check_students() {
    local row name seen=" teacher "
    ((${#STUDENTS[@]} > 0)) || problem STUDENTS "must have at least one row" ""
    for row in "${STUDENTS[@]}"; do
        parse_student "$row"
        name=$STUDENT_NAME
        [[ $name =~ ^[A-Za-z0-9._@-]+$ ]] || problem "STUDENTS name" "must have only letters, digits, dots, dashes and @" "$name"
        [[ $seen != *" $name "* ]] || problem "STUDENTS name" "must occur once and not be teacher" "$name"
        seen+="$name "
        check_choice "STUDENTS $name architecture" "$STUDENT_ARCH" "${KNOWN_ARCHITECTURES[@]}"
        [[ $STUDENT_DATA =~ ^gold@[1-9][0-9]*$ ]] || check_choice "STUDENTS $name data" "$STUDENT_DATA" "${DATA_KINDS[@]}" gold@PIECES
        check_criterion "STUDENTS $name"
        check_vocabularies "STUDENTS $name"
        baseline_of_student
        [[ -z $BASELINE || $STUDENT_SYSTEM == "$(baseline_system)" || -n $REPLY ]] ||
            problem BASELINE "must have a row with the seed $STUDENT_SEED, as $name has" "$(baseline_system)"
    done
    # shellcheck disable=SC2086 # a list of names
    check_exports $seen
    check_targets
}

# check_criterion ROW: checks the criterion, and whether it supports the data.
check_criterion() {
    if [[ $STUDENT_CRITERION == *@* ]]; then
        if [[ $STUDENT_LOSS != word_level_kd && $STUDENT_LOSS != hidden_state_kd || ! $STUDENT_CACHE_K =~ ^[1-9][0-9]*$ ]]; then
            problem "$1 criterion" "must be word_level_kd@K or hidden_state_kd@K with a whole number K over 0" "$STUDENT_CRITERION"
        elif [[ $VOCAB_SIZE =~ ^[1-9][0-9]*$ ]] && ((STUDENT_CACHE_K > VOCAB_SIZE)); then
            problem "$1 criterion" "must be $STUDENT_LOSS@K with K at most VOCAB_SIZE ($VOCAB_SIZE)" "$STUDENT_CRITERION"
        fi
    else
        check_choice "$1 criterion" "$STUDENT_CRITERION" "${KNOWN_CRITERIONS[@]}"
    fi
    if [[ $STUDENT_LOSS == sequence_level_kd && $STUDENT_DATA != k-best ]]; then
        problem "$1 data" "must be k-best with the criterion sequence_level_kd" "$STUDENT_DATA"
    elif [[ $STUDENT_LOSS != sequence_level_kd && $STUDENT_DATA == k-best ]]; then
        problem "$1 criterion" "must be sequence_level_kd with the data k-best" "$STUDENT_CRITERION"
    fi
}

# check_vocabularies ROW: word-level KD is not available for a separate vocabulary, because the teacher's vocabulary differs.
check_vocabularies() {
    if is_dual; then
        [[ -n $STUDENT_PIECES ]] || problem "$1 data" "must be gold@PIECES with the criterion dual_vocab_kd" "$STUDENT_DATA"
    elif [[ -n $STUDENT_PIECES ]]; then
        check_choice "$1 criterion with data of another vocabulary" "$STUDENT_CRITERION" \
            label_smoothed_cross_entropy fused_label_smoothed_cross_entropy dual_vocab_kd
    fi
    [[ $STUDENT_PIECES != "$VOCAB_SIZE" ]] || problem "$1 data" "must be gold where the pieces are as many as VOCAB_SIZE" "$STUDENT_DATA"
}

# check_targets: checks that the settings of the teacher's translations are consistent.
check_targets() {
    local of
    check_choice KD_INTERPOLATION "$KD_INTERPOLATION" bleu chrf
    ((${#PROBLEMS[@]} == 0)) || return 0 # the comparisons below need valid numbers
    ((KD_NBEST <= KD_BEAM)) || problem KD_NBEST "must be at most KD_BEAM ($KD_BEAM)" "$KD_NBEST"
    of=$((KD_NBEST == 0 ? KD_BEAM : KD_NBEST))
    ((KD_K_BEST <= of)) || problem KD_K_BEST "must be at most the $of hypotheses that are kept of a source" "$KD_K_BEST"
    ((DUAL_ALONE_UPDATE == 0)) || check_alone
    ! drops_worst || [[ -n $KD_REVERSE_CHECKPOINT ]] ||
        problem KD_REVERSE_CHECKPOINT "must be a model of the other direction when KD_DROP_WORST is over 0" ""
}

# check_alone: the training without the teacher must save at least as many checkpoints as are averaged.
check_alone() {
    local interval=$STUDENT_SAVE_INTERVAL least
    least=$((interval * (STUDENT_AVERAGE_LAST - 1) + 1))
    if ((interval == 0)); then
        problem STUDENT_SAVE_INTERVAL "must be over 0 with DUAL_ALONE_UPDATE" "$interval"
    elif ((DUAL_ALONE_UPDATE < least)); then
        problem DUAL_ALONE_UPDATE "must be 0 or at least $least, for STUDENT_AVERAGE_LAST ($STUDENT_AVERAGE_LAST) checkpoints" \
            "$DUAL_ALONE_UPDATE"
    fi
}
