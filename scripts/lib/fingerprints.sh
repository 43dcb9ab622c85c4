# shellcheck shell=bash
# Purpose: tells whether a step has to run: a fingerprint of what it does, a digest of what it made.
# Inputs:  commands, files, folders, the .done files beside outputs.
# Outputs: each function answers in REPLY, as bash's read does: a subshell for each of hundreds of questions takes seconds.
# Example: input_facts a; facts=$REPLY; words_fingerprint "$facts" cp a b; echo "$REPLY"
#
# The fingerprint is a sha256 over the command and its inputs. For a raw input it takes the content; for one that a step
# made, that step's fingerprint and the digest. Machine paths are replaced by names first, so a work directory can be moved.

# Of what steps made, files over this size count by their size only; smaller ones by their content, which costs little.
readonly HASH_LIMIT=$((64 * 1024 * 1024))

# portable TEXT: the machine's own paths in it replaced by names.
portable() {
    REPLY=${1//"$RAW_DIR"/@RAW@}
    REPLY=${REPLY//"$WORK_DIR"/@WORK@}
    REPLY=${REPLY//"$FC_BIN"/@BIN@}
    REPLY=${REPLY//"$ROOT"/@ROOT@}
}

# words_fingerprint FACTS WORD...: sha256 over the words of a command and what input_facts told of its inputs.
words_fingerprint() {
    local facts=$1 words="" word
    shift
    for word in "$@"; do
        portable "$word"
        words+=$REPLY$'\n'
    done
    REPLY=$(sha256sum <<<"$words$facts")
    REPLY=${REPLY%% *}
}

# input_facts INPUT...: a line for each input, with its name, the step that made it, and its digest.
input_facts() {
    local facts="" word producer limit
    for word in "$@"; do
        producer_fingerprint "$word"
        producer=$REPLY limit=$HASH_LIMIT
        [[ $producer != raw ]] || limit=$((1 << 62)) # nothing but its content tells whether raw text changed
        portable "$word"
        facts+="input $REPLY $producer "
        digest "$word" "$limit"
        facts+=$REPLY$'\n'
    done
    REPLY=$facts
}

# producer_fingerprint PATH: the fingerprint of the step that made PATH or a folder above it, or "raw".
producer_fingerprint() {
    local path=$1
    while [[ -n $path ]]; do
        recorded fingerprint "$path.done"
        [[ -z $REPLY ]] || return 0
        [[ $path == */* ]] || break
        path=${path%/*}
    done
    REPLY=raw
}

# recorded KEY FILE: the value of fingerprint, digest, start or limits in a .done file; empty when there is no such file.
recorded() {
    local key value
    REPLY=
    [[ -f $2 ]] || return 0
    while read -r key value; do
        if [[ $key == "$1" ]]; then REPLY=$value; fi
    done <"$2"
}

# digest PATH [LIMIT]: one sha256 of a file, or of all files below a folder; files over LIMIT bytes count by their size.
digest() {
    local path=$1 limit=${2:-$HASH_LIMIT}
    if [[ -d $path ]]; then
        REPLY=$(cd "$path" && {
            find -L . -type f -size "+${limit}c" -printf 'size-%s %p\n'
            find -L . -type f ! -size "+${limit}c" -print0 | xargs -0r sha256sum
        } | LC_ALL=C sort | sha256sum)
    elif (($(stat -L --format %s "$path") > limit)); then
        REPLY=size-$(stat -L --format %s "$path")
    else
        REPLY=$(sha256sum <"$path")
    fi
    REPLY=${REPLY%% *}
}

# same_digest PATH DONE_FILE
same_digest() {
    local digest
    digest "$1"
    digest=$REPLY
    recorded digest "$2"
    [[ $REPLY == "$digest" ]]
}
