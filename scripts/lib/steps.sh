# shellcheck shell=bash
# Purpose: run_step, which runs, skips and resumes the steps of the pipeline.
# Inputs:  a command, the paths it reads, the one path (file or folder) it writes.
# Outputs: OUTPUT, and OUTPUT.done next to it with the fingerprint of the step and the digest of OUTPUT.
# Example: run_step encode-train "$WORK_DIR/encoded/train.en" --in "$text" -- \
#              "$FC_BIN/fairseq-compress" encode --input "$text" --output @OUT@
#
# A step is done if its fingerprint (fingerprints.sh) is the recorded one and its output is unchanged. With ADOPT=1 an existing
# output without OUTPUT.done is accepted.
#
# If it is killed at any point, a step is either done or runs again:
#   1. the command writes OUTPUT.tmp                               (killed: runs again; a training resumes in OUTPUT.tmp)
#   2. the old OUTPUT is removed, then OUTPUT.done is replaced     (killed: OUTPUT.tmp has the recorded digest, see adopt_output)
#   3. OUTPUT.tmp is renamed to OUTPUT                             (done)
# The previous output is kept until its replacement is complete (2): restore the old settings and it is reused.

readonly PROGRESS_LINES='\| (train_inner|train|valid) \||(sentences|tokens)/s|done training|sents, |progress_bar::? .*wps='

# run_step NAME OUTPUT [options] -- COMMAND...   (@OUT@ in COMMAND stands for the path to write)
#   --in PATH       an input; can be repeated
#   --folder        create the output folder before the command runs
#   --stdout        the output is the standard output of the command
#   --log           write the command's messages to logs/NAME.log, and only progress to the terminal
#   --resume        the command can resume from an incomplete output folder
#   --limit OPTION  with --resume: an option of the command whose value only limits its length (0: no limit); can be repeated. If
#                   only limits were raised, the command continues from the existing output
#   --check WORD    a word of a shell command that verifies the finished temporary output; the path is appended. The step fails if
#                   the command fails; can be repeated: --check check_same_lines --check "$text"
#   --before WORD   a word in front of the command that does not change the output (a launcher); can be repeated
#   --unhashed ARG  an argument of the command that does not change the output (logging); can be repeated
run_step() {
    local name=$1 output=$2 inputs=() before=() unhashed=() check=() limits=() folder=0 stdout=0 log=0 resume=0
    local fingerprint record=()
    shift 2
    parse_step_options "$@"
    shift "$REPLY"
    if [[ $DRY_RUN == 1 ]]; then
        show_step "$name" "$output" "$stdout" "${before[@]}" "$@" "${unhashed[@]}"
        return
    fi

    require_inputs "$name" "${inputs[@]}"
    describe_step "$@"
    adopt_output "$output" "$fingerprint"
    if step_is_done "$output" "$fingerprint"; then
        [[ -e $output.tmp ]] || rm -f "$output.tmp.fingerprint" # left over if killed right after the last rename
        say "skip $name"
        return
    fi
    if [[ $ADOPT == 1 ]] && is_foreign "$output"; then
        say "take $name as it is"
        ((${#check[@]} == 0)) || "${check[@]}" "$output"
        digest "$output"
        record_done "$output" "$REPLY"
        return
    fi
    ! is_foreign "$output" ||
        die "step $name: $output exists and was not made by this pipeline; move it away or set WORK_DIR (ADOPT=1: take it)"
    if is_per_machine "${before[@]}"; then
        refuse_many_machines "$name" "$output" "$stdout" "${before[@]}" "$@" "${unhashed[@]}"
    fi
    step_reason "$name" "$output" "$fingerprint"
    begin_output "$output"
    ((folder == 0)) || mkdir -p "$output.tmp"
    execute_step "$name" "$output" "$stdout" "$log" "${before[@]}" "$@" "${unhashed[@]}"
    ((${#check[@]} == 0)) || "${check[@]}" "$output.tmp"
    finish_output "$output"
}

# describe_step COMMAND...: sets run_step's fingerprint and record, the lines of the .done file.
describe_step() {
    local facts
    input_facts "${inputs[@]}"
    facts=$REPLY
    words_fingerprint "$facts" "$@"
    fingerprint=$REPLY record=("fingerprint $REPLY")
    ((${#limits[@]} > 0)) || return 0
    split_limits "$@"
    words_fingerprint "$facts" "${START_WORDS[@]}"
    record+=("start $REPLY" "limits $START_LIMITS")
}

# parse_step_options OPTION... -- ...: sets run_step's variables; REPLY is the number of words up to and including the --.
parse_step_options() {
    local words=$#
    while [[ $1 != -- ]]; do
        case $1 in
            --in) inputs+=("$2") && shift ;;
            --check) check+=("$2") && shift ;;
            --before) before+=("$2") && shift ;;
            --unhashed) unhashed+=("$2") && shift ;;
            --limit) limits+=("$2") && shift ;;
            --folder) folder=1 ;;
            --stdout) stdout=1 ;;
            --log) log=1 ;;
            --resume) resume=1 ;;
            *) die "run_step $name: unknown option $1" ;;
        esac
        shift
    done
    REPLY=$((words - $# + 1))
}

# show_step NAME OUTPUT STDOUT COMMAND...: prints the command ready to paste, with the final name of the output; once for each
# machine if the command contains the rank of the machine.
show_step() {
    local name=$1 output=$2 stdout=$3 machines=1 number words
    shift 3
    if is_per_machine "$@"; then machines=$NODES; fi
    for ((number = 0; number < machines; number++)); do
        words=("${@//@OUT@/"$output"}")
        if ((machines == 1)); then printf '# %s\n' "$name"; else printf '# %s, machine %s of 0 to %s\n' "$name" "$number" $((machines - 1)); fi
        printf '%q ' "${words[@]//@NODE_RANK@/"$number"}"
        if [[ $stdout == 1 ]]; then printf '> %q' "$output"; fi
        printf '\n'
    done
}

# is_per_machine WORD...: the command must be started on each machine, with its rank.
is_per_machine() { [[ " $* " == *" @NODE_RANK@ "* ]]; }

# refuse_many_machines NAME OUTPUT STDOUT COMMAND...: torchrun starts processes on its own machine only.
refuse_many_machines() {
    [[ ! -e $2 && ! -e $2.done ]] || die "step $1: move $2 and $2.done away, which are of other settings"
    show_step "$@"
    die "step $1 has to be started on each of the $NODES machines: run these commands there, then this again with ADOPT=1;" \
        "or set LAUNCHER=srun, or NODES=1"
}

require_inputs() {
    local name=$1 input
    shift
    for input in "$@"; do
        [[ -e $input ]] || die "step $name: missing input $input (does an earlier stage have to run first?)"
    done
}

# step_is_done OUTPUT FINGERPRINT: the output was made by this command from these inputs, and is unchanged.
step_is_done() {
    [[ -e $1 ]] || return 1
    recorded fingerprint "$1.done"
    [[ $REPLY == "$2" ]] || return 1
    same_digest "$1" "$1.done"
}

# step_reason NAME OUTPUT FINGERPRINT: prints why the step runs.
step_reason() {
    local made
    recorded fingerprint "$2.done"
    made=$REPLY
    if is_begun "$2" "$3"; then
        say "run $1 (it was interrupted)"
    elif can_go_on "$2.tmp.fingerprint" || { can_go_on "$2.done" && same_digest "$2" "$2.done"; }; then
        say "run $1 (goes on: only$(printf ' or %s' "${limits[@]}" | cut -c 4-) was raised)"
    elif [[ -n $made && $made != "$3" ]]; then
        say "run $1 (inputs or settings changed)"
    elif [[ -n $made ]]; then
        say "run $1 (its output was changed or removed)"
    else
        say "run $1"
    fi
}

# adopt_output OUTPUT FINGERPRINT: completes a step that was killed between its last two renames. The digest alone is not
# sufficient: it uses only the size of large files, and trainings with different settings make files of equal size.
adopt_output() {
    [[ ! -e $1 && -e $1.tmp ]] && is_begun "$1" "$2" || return 0
    recorded fingerprint "$1.done"
    if [[ $REPLY == "$2" ]] && same_digest "$1.tmp" "$1.done"; then
        mv "$1.tmp" "$1"
        rm -f "$1.tmp.fingerprint"
    fi
}

# is_foreign OUTPUT: it exists, but was not made by a step; it may be the user's own folder.
is_foreign() { [[ -e $1 && ! -f $1.done && ! -f $1.tmp.fingerprint ]]; }

# is_begun OUTPUT FINGERPRINT: OUTPUT.tmp was written by the step with this fingerprint.
is_begun() {
    recorded fingerprint "$1.tmp.fingerprint"
    [[ $REPLY == "$2" ]]
}

# begin_output OUTPUT: keeps an incomplete output only if the command can resume from it. The output of a step with lower limits is
# copied, because a training overwrites its files: if the step is killed, the old output is still complete.
begin_output() {
    mkdir -p "$(dirname "$1")"
    if [[ $resume == 0 ]] || ! { is_begun "$1" "$fingerprint" || can_go_on "$1.tmp.fingerprint"; }; then
        rm -rf "$1.tmp" "$1.tmp.fingerprint" "$1.tmp.copy"
        if can_go_on "$1.done" && same_digest "$1" "$1.done"; then
            cp -r --reflink=auto "$1" "$1.tmp.copy"
            mv "$1.tmp.copy" "$1.tmp"
        fi
    fi
    printf '%s\n' "${record[@]}" >"$1.tmp.fingerprint.new"
    mv "$1.tmp.fingerprint.new" "$1.tmp.fingerprint"
}

# execute_step NAME OUTPUT STDOUT LOG COMMAND...
execute_step() {
    local name=$1 output=$2 log=/dev/null status=0
    local guard=("${DIE_WITH_PARENT[@]}")
    # srun forwards TERM to its processes on all machines; KILL would not reach them.
    if [[ $5 == srun ]]; then guard=("${guard[@]/#KILL/TERM}"); fi
    local command=("${guard[@]}" "${@:5}") # the first command of a pipeline is a child of this shell
    command=("${command[@]//@OUT@/"$output.tmp"}")
    [[ $4 == 0 ]] || log=$WORK_DIR/logs/$name.log
    case $3$4 in
        00) "${command[@]}" 9>&- || status=$? ;;
        01) "${command[@]}" 2>&1 9>&- | tee -a "$log" | show_progress || status=$? ;;
        10) "${command[@]}" >"$output.tmp" 9>&- || status=$? ;;
        11) { "${command[@]}" 2>&1 >"$output.tmp" 9>&- | tee -a "$log" | show_progress; } || status=$? ;;
    esac
    if ((status != 0)); then
        [[ $4 == 0 ]] || tail -n 15 "$log" | cut -c 1-500 >&2
        die "step $name failed with exit status $status$([[ $4 == 0 ]] || echo "; see $log")"
    fi
    [[ -e $output.tmp ]] || die "step $name ended well but made no $output.tmp"
}

# show_progress: prints only the lines of a log that show progress.
show_progress() { grep --line-buffered -E "$PROGRESS_LINES" || true; }

finish_output() {
    digest "$1.tmp"
    rm -rf "$1"
    record_done "$1" "$REPLY"
    mv "$1.tmp" "$1"
    rm -f "$1.tmp.fingerprint"
}

# record_done OUTPUT DIGEST
record_done() {
    printf '%s\n' "${record[@]}" "digest $2" >"$1.done.new"
    mv "$1.done.new" "$1.done"
}
