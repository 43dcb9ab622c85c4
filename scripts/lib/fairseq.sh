# shellcheck shell=bash
# Purpose: builds the commands of fairseq for the teacher and for students.
# Inputs:  the settings of the configuration.
# Outputs: each function sets the array COMMAND, or runs it as a step.
# Example: train_command TEACHER "$WORK_DIR/bin" transformer_small; run_step train-teacher ... -- "${COMMAND[@]}"

# setting ROLE VARIABLE: "setting TEACHER LR" prints the value of TEACHER_LR.
setting() {
    local variable=$1_$2
    printf '%s\n' "${!variable}"
}

# train_command ROLE DATA ARCH CRITERION: ROLE is TEACHER or STUDENT, the prefix of the settings.
train_command() {
    local role=$1 data=$2 arch=$3 criterion=$4
    local -n extra=$1_EXTRA
    device_arguments
    launch_training
    COMMAND=(
        "$FC_BIN/fairseq-train" "$data" "${DEVICE_ARGUMENTS[@]}" "${DISTRIBUTED[@]}"
        --source-lang "$SOURCE_LANG" --target-lang "$TARGET_LANG" --save-dir @OUT@ --seed "$SEED"
        --arch "$arch" --dropout "$(setting "$role" DROPOUT)"
        --criterion "$criterion" --label-smoothing "$LABEL_SMOOTHING"
        --optimizer adam --adam-betas "$ADAM_BETAS" --clip-norm "$CLIP_NORM"
        --lr-scheduler inverse_sqrt --lr "$(setting "$role" LR)" --warmup-updates "$(setting "$role" WARMUP)"
        --max-tokens "$(setting "$role" MAX_TOKENS)" --update-freq "$(setting "$role" UPDATE_FREQ)"
        --max-epoch "$(setting "$role" MAX_EPOCH)" --max-update "$(setting "$role" MAX_UPDATE)"
        --num-workers 1 --log-format simple --log-interval 100
    )
    checkpoint_arguments "$(setting "$role" SAVE_INTERVAL)" "$(setting "$role" AVERAGE_LAST)"
    COMMAND+=("${extra[@]}")
}

# checkpoint_arguments INTERVAL LAST: keeps the LAST checkpoints for averaging, and checkpoint_last.pt for resuming.
checkpoint_arguments() {
    if (($1 > 0)); then
        COMMAND+=(--save-interval-updates "$1" --keep-interval-updates "$2" --no-epoch-checkpoints)
    else
        COMMAND+=(--keep-last-epochs "$2")
    fi
}

# train_step NAME OUTPUT [options of run_step]: runs COMMAND as a training step that can be resumed.
train_step() {
    local name=$1 output=$2 wandb=()
    shift 2
    if [[ -n $WANDB_PROJECT ]]; then
        wandb=(--unhashed --wandb-project --unhashed "$WANDB_PROJECT")
        # shellcheck disable=SC2153 # NAME is the configuration's
        export WANDB_NAME=$NAME-$name WANDB_DIR=$WORK_DIR
        if ! has_wandb_login; then export WANDB_MODE=${WANDB_MODE:-offline}; fi
    fi
    training_limits
    run_step "$name" "$output" --log --resume "${LIMIT_OPTIONS[@]}" "${MACHINE_ARGUMENTS[@]}" "${wandb[@]}" "$@" -- "${COMMAND[@]}"
}

# training_limits: sets LIMIT_OPTIONS, options of run_step, to the options in COMMAND that only set the end of the training. With a
# schedule that decays until the last update, as polynomial_decay without --total-num-update, the whole training depends on its end.
training_limits() {
    local word previous="" scheduler="" total=""
    for word in "${COMMAND[@]}"; do
        case $previous in
            --lr-scheduler) scheduler=$word ;;
            --total-num-update) total=$word ;;
        esac
        case $word in
            --lr-scheduler=*) scheduler=${word#*=} ;;
            --total-num-update=*) total=${word#*=} ;;
        esac
        previous=$word
    done
    LIMIT_OPTIONS=()
    case $scheduler/$total in
        inverse_sqrt/* | fixed/* | polynomial_decay/?*) LIMIT_OPTIONS=(--limit --max-update --limit --max-epoch) ;;
    esac
}

# has_wandb_login: wandb login stores its key in the netrc file.
has_wandb_login() { [[ -n ${WANDB_API_KEY:-} ]] || grep -qsF api.wandb.ai "${NETRC:-$HOME/.netrc}"; }

# average_step NAME CHECKPOINTS OUTPUT ROLE: averages the last checkpoints of a training, including the one at its end.
average_step() {
    local by=epoch
    if (($(setting "$4" SAVE_INTERVAL) > 0)); then by=update; fi
    run_step "$1" "$3" --in "$2" -- "$FC_BIN/fairseq-compress" average --checkpoint "$2" \
        --last "$(setting "$4" AVERAGE_LAST)" --by "$by" --include-last --output @OUT@
}

# generate_command DATA SUBSET CHECKPOINT BEAM MAX_TOKENS: translates into sentencepiece pieces. Only sentencepiece can join byte
# pieces; fairseq's post-processing prints them as <0xC5>. The command is fairseq-generate followed by three timings of a sample.
generate_command() {
    device_arguments
    COMMAND=(
        "$FC_BIN/fairseq-compress" time -- "$1" "${DEVICE_ARGUMENTS[@]}" --source-lang "$SOURCE_LANG" --target-lang "$TARGET_LANG"
        --gen-subset "$2" --path "$3" --beam "$4" --max-tokens "$5" --lenpen "$LENGTH_PENALTY"
        --max-len-a "$MAX_LEN_A" --max-len-b "$MAX_LEN_B" --seed "$SEED" --log-format simple --log-interval 20
    )
}

# updates_of NAME: prints the number of updates of a training step, from the last line of its log that has it.
updates_of() {
    if [[ $DRY_RUN == 1 ]]; then
        echo UPDATES_IN_LOG
    elif [[ ! -f $WORK_DIR/logs/$1.log ]]; then
        echo unknown # ADOPT=1
    else
        sed -nE 's/.*num_updates[": ]+([0-9]+).*/\1/p' "$WORK_DIR/logs/$1.log" | tail -n 1
    fi
}

# pace_of NAME: prints the seconds per update of a training step, without loading, validation and saving: the median of the times
# that its log has for every 100 updates. The log may hold earlier trainings; a new one starts where the number of updates falls.
pace_of() {
    if [[ $DRY_RUN == 1 ]]; then
        echo PACE_IN_LOG
    elif [[ -f $WORK_DIR/logs/$1.log ]]; then
        sed -nE 's/.*\| train_inner \|.* num_updates=([0-9]+),.* train_wall=([0-9.]+),.*/\1 \2/p' "$WORK_DIR/logs/$1.log" |
            awk '$1 <= last { delete wall; n = 0 } { last = $1; wall[++n] = $2 } END { for (i = 1; i <= n; i++) print wall[i] }' |
            sort -n | awk '{ wall[NR] = $1 } END { if (NR) printf "%.3f\n", (wall[int((NR + 1) / 2)] + wall[int(NR / 2) + 1]) / 200 }'
    fi
}
