# shellcheck shell=bash
# Purpose: reads configs/defaults.env and then the configuration; checks all settings before any work is done.
# Inputs:  CONFIG, the path of an .env file; settings from the environment, see configs/defaults.env.
# Outputs: the settings as variables; NAME, the file name of the configuration without .env.
# Example: load_config configs/demo-en-cs.env; check_config

# load_config CONFIG: loads it and changes to the root of the repository, where relative paths start. It must not have local
# variables: a variable of the same name in a configuration would be lost.
load_config() {
    warn_of_environment
    locate_config "$1"
    cd "$ROOT" || exit
    # shellcheck source=configs/defaults.env
    source configs/defaults.env
    names_before
    # shellcheck source=/dev/null
    source "$CONFIG"
    names_after
}

# locate_config CONFIG: sets CONFIG and NAME; resolves the paths from the environment before the current directory changes.
locate_config() {
    local variable
    CONFIG=$(absolute_path "$1")
    [[ -f $CONFIG ]] || die "CONFIG must be a file, got '$1'"
    NAME=$(basename "$CONFIG" .env)
    for variable in WORK_DIR RAW_DIR FC_BIN; do
        if [[ -n ${!variable:-} ]]; then printf -v "$variable" %s "$(path_from_root "${!variable}")"; fi
    done
}

# check_config: prints all problems of the configuration, one a line: the variable, the rule and the value.
check_config() {
    PROBLEMS=()
    check_names
    check_required
    check_numbers
    check_choices
    check_launcher
    check_students
    [[ $DRY_RUN == 1 ]] || check_files
    ((${#PROBLEMS[@]} > 0)) || return 0
    printf "$NAME: error: %s\n" "${PROBLEMS[@]}" >&2
    exit 1
}

# problem VARIABLE RULE VALUE
problem() { PROBLEMS+=("$1 $2, got '$3'"); }

check_required() {
    local variable role code='^[A-Za-z0-9]+([-_@][A-Za-z0-9]+)*$' # CODE of fairseq_compress/languages.py
    for variable in SOURCE_LANG TARGET_LANG RAW_DIR VALID_PREFIX TEST_PREFIX VOCAB_SIZE; do
        [[ -n ${!variable} ]] || problem "$variable" "must be set" ""
    done
    for variable in SOURCE_LANG TARGET_LANG; do
        [[ -z ${!variable} || ${!variable} =~ $code ]] || problem "$variable" \
            "must be a language code: letters and digits, joined by '-', '_' or '@', such as en, pt_BR, zh-Hant" "${!variable}"
    done
    ((${#TRAIN_PREFIXES[@]} > 0)) || problem TRAIN_PREFIXES "must name at least one corpus" ""
    [[ -z $SOURCE_LANG || $SOURCE_LANG != "$TARGET_LANG" ]] ||
        problem TARGET_LANG "must differ from SOURCE_LANG" "$TARGET_LANG"
    for role in TEACHER STUDENT; do
        [[ $(setting "$role" MAX_EPOCH)/$(setting "$role" MAX_UPDATE) != 0/0 ]] ||
            problem "${role}_MAX_EPOCH or ${role}_MAX_UPDATE" "must be over 0, or training never ends" 0
    done
}

# check_numbers: checks the range of each number. check_required reports empty settings.
check_numbers() {
    local variable role
    for variable in VOCAB_SIZE MAX_WORDS PROCESSES NODES WORKERS BEAM TRANSLATE_MAX_TOKENS \
        KD_BEAM KD_MAX_TOKENS KD_PROCESSES CACHE_MAX_TOKENS; do
        check_number "$variable" positive-integer
    done
    [[ $JOBS == auto || $JOBS =~ ^[1-9][0-9]*$ ]] || problem JOBS "must be auto or a whole number over 0" "$JOBS"
    for variable in MAX_RATIO CHARACTER_COVERAGE KD_TEMPERATURE SEQUENCE_KD_TEMPERATURE; do
        check_number "$variable" positive
    done
    for variable in VOCAB_SENTENCES SEED MAX_LEN_B KD_NBEST KD_K_BEST COST_TOKENS DUAL_ALONE_UPDATE; do
        check_number "$variable" integer
    done
    for variable in KD_ALPHA LABEL_SMOOTHING KD_DROP_WORST DUAL_P_MIX; do check_number "$variable" fraction; done
    for variable in CLIP_NORM LENGTH_PENALTY MAX_LEN_A; do check_number "$variable" number; done
    for role in TEACHER STUDENT; do
        for variable in MAX_TOKENS UPDATE_FREQ AVERAGE_LAST; do check_number "${role}_$variable" positive-integer; done
        for variable in WARMUP MAX_EPOCH MAX_UPDATE SAVE_INTERVAL; do check_number "${role}_$variable" integer; done
        check_number "${role}_LR" positive
        check_number "${role}_DROPOUT" fraction
    done
    ((${#PROBLEMS[@]} > 0)) || for role in TEACHER STUDENT; do check_checkpoints "$role"; done
}

# check_checkpoints ROLE: a training must save at least as many checkpoints as are averaged; the last one is at its end.
check_checkpoints() {
    local last updates epochs interval saves
    last=$(setting "$1" AVERAGE_LAST) updates=$(setting "$1" MAX_UPDATE)
    epochs=$(setting "$1" MAX_EPOCH) interval=$(setting "$1" SAVE_INTERVAL)
    if ((interval > 0 && updates > 0)); then
        saves=$(((updates + interval - 1) / interval))
        ((last <= saves)) || problem "$1_AVERAGE_LAST" "must be at most $1_MAX_UPDATE / $1_SAVE_INTERVAL, rounded up ($saves)" "$last"
    elif ((interval == 0 && updates == 0)); then
        ((last <= epochs)) || problem "$1_AVERAGE_LAST" "must be at most $1_MAX_EPOCH ($epochs)" "$last"
    fi
}

# check_number VARIABLE KIND
check_number() {
    local value=${!1} integer='^(0|[1-9][0-9]*)$' number='^([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$'
    [[ -n $value || $1 != VOCAB_SIZE ]] || return 0
    case $2 in
        integer) [[ $value =~ $integer ]] || problem "$1" "must be a whole number, 0 or more" "$value" ;;
        positive-integer) [[ $value =~ $integer && $value != 0 ]] || problem "$1" "must be a whole number over 0" "$value" ;;
        number) [[ $value =~ $number ]] || problem "$1" "must be a number, 0 or more" "$value" ;;
        positive) [[ $value =~ $number && ${value%[eE]*} =~ [1-9] ]] || problem "$1" "must be a number over 0" "$value" ;;
        fraction) [[ $value =~ ^(0(\.[0-9]*)?|\.[0-9]+|1(\.0*)?)$ ]] || problem "$1" "must be a number from 0 to 1" "$value" ;;
    esac
}

check_choices() {
    check_choice AUTOCAST "$AUTOCAST" auto none bfloat16
    check_choice DEVICE "$DEVICE" auto cpu gpu
    check_choice FP16 "$FP16" 0 1
    check_choice ADOPT "$ADOPT" 0 1
    check_choice KD_PRECISION "$KD_PRECISION" auto float32 bfloat16 int8
    check_choice DUAL_TEACHER "$DUAL_TEACHER" trained new
    check_choice CACHE_DTYPE "$CACHE_DTYPE" float16 float32
    check_choice TEACHER_ARCH "$TEACHER_ARCH" "${KNOWN_ARCHITECTURES[@]}"
    [[ $FP16 == 0 || $DEVICE != cpu ]] || problem FP16 "needs a GPU, but DEVICE is cpu" "$FP16"
    [[ $FP16 == 0 || $AUTOCAST != bfloat16 ]] || problem AUTOCAST "must be none or auto when FP16 is 1" "$AUTOCAST"
}

# check_choice VARIABLE VALUE CHOICE...
check_choice() {
    local variable=$1 value=$2 choice
    shift 2
    for choice in "$@"; do [[ $value != "$choice" ]] || return 0; done
    suggest "$value" "$@"
    PROBLEMS+=("$variable must be one of: $*, got '$value'${REPLY:+ (did you mean $REPLY?)}")
}

# check_files: programs and raw text must exist. Generated text does not exist yet and is checked when it is read.
check_files() {
    local programs=(fairseq-train fairseq-generate fairseq-preprocess fairseq-compress) program prefix lang
    if [[ $LAUNCHER == torchrun && $PROCESSES/$NODES/$KD_PROCESSES != 1/1/1 ]]; then programs+=(torchrun); fi
    for program in "${programs[@]}"; do
        [[ -x $FC_BIN/$program ]] || problem FC_BIN "must have $program (bash scripts/bootstrap.sh makes it)" "$FC_BIN"
    done
    [[ ${NEEDS_RAW_TEXT:-0} == 1 && ${#GENERATE[@]} == 0 ]] || return 0
    for prefix in "${TRAIN_PREFIXES[@]}" "$VALID_PREFIX" "$TEST_PREFIX"; do
        for lang in "$SOURCE_LANG" "$TARGET_LANG"; do
            [[ -z $prefix || -s $prefix.$lang ]] || problem "raw text" "must exist and not be empty" "$prefix.$lang"
        done
    done
}
