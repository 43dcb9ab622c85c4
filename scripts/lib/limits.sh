# shellcheck shell=bash disable=SC2154
# Purpose: continues a step from its output if only its limits were raised, such as --max-update of a training.
# Inputs:  limits, resume and record of run_step; the .done files next to outputs.
# Outputs: START_WORDS and START_LIMITS of a command; whether a step can be continued.
# Example: limits=(--max-update); split_limits fairseq-train DATA --max-update 100; echo "$START_LIMITS"
#
# The record of such an output has a second fingerprint ("start") of the command without its limits, and the limits.

# split_limits COMMAND...: sets START_WORDS to the command without the values of its limits, and START_LIMITS to these values. If an
# option is repeated, the last value counts.
split_limits() {
    local -A found=()
    local option word previous=""
    START_WORDS=() START_LIMITS=
    for option in "${limits[@]}"; do found[$option]=0; done
    for word in "$@"; do
        if [[ $previous == --* && -n ${found[$previous]:-} ]]; then
            found[$previous]=$word word=@LIMIT@
        elif [[ $word == --*=* && -n ${found[${word%%=*}]:-} ]]; then
            found[${word%%=*}]=${word#*=} word=${word%%=*}=@LIMIT@
        fi
        START_WORDS+=("$word")
        previous=$word
    done
    for option in "${limits[@]}"; do START_LIMITS+="${found[$option]} "; done
    START_LIMITS=${START_LIMITS% }
}

# can_go_on RECORD: RECORD describes the same step with limits that are all equal or lower.
can_go_on() {
    local old new index
    ((resume == 1 && ${#limits[@]} > 0)) || return 1
    recorded start "$1"
    [[ -n $REPLY && "start $REPLY" == "${record[1]}" ]] || return 1
    recorded limits "$1"
    read -ra old <<<"$REPLY"
    read -ra new <<<"${record[2]#limits }"
    for index in "${!new[@]}"; do
        [[ ${old[index]:-} =~ ^[0-9]+$ && ${new[index]} =~ ^[0-9]+$ ]] || return 1
        ((new[index] == 0 || (old[index] > 0 && new[index] >= old[index]))) || return 1
    done
}
