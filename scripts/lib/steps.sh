# shellcheck shell=bash
# Purpose: run_step, the one mechanism that runs, skips and resumes the steps of the pipeline.
# Inputs:  a command, the paths it reads, the one path (file or folder) it makes.
# Outputs: OUTPUT, and OUTPUT.done beside it with the step's fingerprint and a digest of what was made.
# Example: run_step encode-train "$WORK_DIR/encoded/train.en" --in "$text" -- \
#              "$FC_BIN/fairseq-compress" encode --input "$text" --output @OUT@
#
# A step is done when its fingerprint (fingerprints.sh) is that of the last time and its output is as it was left. With
# ADOPT=1 an output without OUTPUT.done, which somebody else made, is taken as it is.
#
# Killed at any point, a step is either done or runs again:
#   1. the command works on OUTPUT.tmp                             (killed: runs again; training resumes inside OUTPUT.tmp)
#   2. the old OUTPUT is removed, then OUTPUT.done is replaced     (killed: OUTPUT.tmp answers to the digest, see adopt_output)
#   3. OUTPUT.tmp is renamed to OUTPUT                             (done)
# Until 2, the old OUTPUT stays with the OUTPUT.done of its own fingerprint: whoever sets the old settings again has it back.

readonly PROGRESS_LINES='\| (train_inner|train|valid) \||(sentences|tokens)/s|done training|sents, |progress_bar::? .*wps='

# run_step NAME OUTPUT [options] -- COMMAND...   (@OUT@ in COMMAND stands for the path to write)
#   --in PATH       an input; repeat it
#   --folder        the output is a folder that the command expects to be there
#   --stdout        the command's standard output is the output
#   --log           what the command prints goes to logs/NAME.log, and only its lines of progress to the terminal
#   --resume        the command can go on from what it left in its output folder
#   --limit OPTION  with --resume: an option of the command whose number only says where it ends, 0 for nowhere; repeat it. When
#                   such numbers were raised and nothing else changed, the command goes on from the output that is there
#   --check WORD    a word of a shell command, to which the path of the finished temporary output is added; when that
#                   command fails, so does the step; repeat it: --check check_same_lines --check "$text"
#   --before WORD   a word put before the command that changes nothing in the output (a launcher); repeat it
#   --unhashed ARG  an argument added to the command that changes nothing in the output (logging); repeat it
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
        [[ -e $output.tmp ]] || rm -f "$output.tmp.fingerprint" # left by a kill right after the last rename
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

# describe_step COMMAND...: sets run_step's fingerprint, and its record: the lines that are kept beside the output.
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

# parse_step_options OPTION... -- ...: fills run_step's variables; REPLY is the number of words up to and with the --.
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

# show_step NAME OUTPUT STDOUT COMMAND...: the command as one could paste it, its output under the final name; one for each
# machine if it names the number of the machine.
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

# is_per_machine WORD...: the command has to be started on every machine, each with its number.
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

# step_is_done OUTPUT FINGERPRINT: made by this very command from these inputs, and not touched since.
step_is_done() {
    [[ -e $1 ]] || return 1
    recorded fingerprint "$1.done"
    [[ $REPLY == "$2" ]] || return 1
    same_digest "$1" "$1.done"
}

# step_reason NAME OUTPUT FINGERPRINT: says why the step runs.
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

# adopt_output OUTPUT FINGERPRINT: finishes a step that was killed between its last two renames. The digest alone does not
# tell: it takes large files by their size, and training with other settings makes files of the same size.
adopt_output() {
    [[ ! -e $1 && -e $1.tmp ]] && is_begun "$1" "$2" || return 0
    recorded fingerprint "$1.done"
    if [[ $REPLY == "$2" ]] && same_digest "$1.tmp" "$1.done"; then
        mv "$1.tmp" "$1"
        rm -f "$1.tmp.fingerprint"
    fi
}

# is_foreign OUTPUT: it is there, and no step made it or was at it; it may be a folder of the user's own.
is_foreign() { [[ -e $1 && ! -f $1.done && ! -f $1.tmp.fingerprint ]]; }

# is_begun OUTPUT FINGERPRINT: OUTPUT.tmp is of the step with that fingerprint.
is_begun() {
    recorded fingerprint "$1.tmp.fingerprint"
    [[ $REPLY == "$2" ]]
}

# begin_output OUTPUT: what an interrupted command left is kept only if it can go on from there. The output of lower limits is
# copied, for a training overwrites its files: killed before finish_output, which replaces the old output, the step still has it
# whole.
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
    # srun passes a TERM on to its processes on all machines; of a KILL they would not know.
    if [[ $5 == srun ]]; then guard=("${guard[@]/#KILL/TERM}"); fi
    local command=("${guard[@]}" "${@:5}") # first in a pipeline, it is a child of this shell and not of another
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

# show_progress: of a log, the lines that tell how far the work is; the others are in the file.
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
