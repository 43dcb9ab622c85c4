# shellcheck shell=bash
# Purpose: decides whether a step has to run: computes the fingerprint of its command and inputs, and the digest of its output.
# Inputs:  commands, files, folders, the .done files next to outputs.
# Outputs: each function returns its result in REPLY: hundreds of subshells would take seconds.
# Example: input_facts a; facts=$REPLY; words_fingerprint "$facts" cp a b; echo "$REPLY"
#
# The fingerprint is a SHA-256 over the command and its inputs: the content of raw inputs; the fingerprint and the digest of inputs
# made by other steps. Machine-specific paths are replaced by placeholders, so a work directory can be moved.

# Digests of outputs of steps use only the size of files over this limit, and the content of smaller files.
readonly HASH_LIMIT=$((64 * 1024 * 1024))

# portable TEXT: replaces machine-specific paths by placeholders.
portable() {
    REPLY=${1//"$RAW_DIR"/@RAW@}
    REPLY=${REPLY//"$WORK_DIR"/@WORK@}
    REPLY=${REPLY//"$FC_BIN"/@BIN@}
    REPLY=${REPLY//"$ROOT"/@ROOT@}
}

# words_fingerprint FACTS WORD...: SHA-256 over the words of a command and the result of input_facts.
words_fingerprint() {
    local facts=$1 words="" word
    shift
    former_words "$@"
    for word in "${FORMER_WORDS[@]}"; do
        portable "$word"
        words+=$REPLY$'\n'
    done
    REPLY=$(sha256sum <<<"$words$facts")
    REPLY=${REPLY%% *}
}

# former_words WORD...: sets FORMER_WORDS to the command with the verb and option names of version 0.2, so that outputs of version
# 0.2 stay valid. To be removed in version 0.3.
former_words() {
    local place verb words=2 # of the verb, with the program before it
    FORMER_WORDS=("$@")
    for ((place = 0; place < $#; place++)); do
        if [[ ${FORMER_WORDS[place]} == */fairseq-compress ]]; then break; fi
    done
    verb=${FORMER_WORDS[*]:place+1:3}
    case $verb in
        "kd-data collect "* | "kd-data encode "* | "kd-data select "* | "kd-data binarize "*) words=3 && verb=${verb#* } && verb=${verb%% *}-hypotheses ;;
        "kd-data score "*) words=3 && verb=score-nbest ;;
        "time -- "*) verb=generate ;;
        "time "*) verb=time-translation ;;
        "quantize --format packed") words=4 && verb=pack ;;
        *) verb=${verb%% *} ;;
    esac
    FORMER_WORDS=("${FORMER_WORDS[@]:0:place}" "${FORMER_WORDS[@]:place:1}" ${verb:+"$verb"} "${FORMER_WORDS[@]:place+words}")
    for place in "${!FORMER_WORDS[@]}"; do
        case "$verb ${FORMER_WORDS[place]}" in
            "prepare --output" | "train-vocabulary --output") FORMER_WORDS[place]=--output-prefix ;;
            "encode --sentencepiece-model" | "decode --sentencepiece-model" | "encode-hypotheses --sentencepiece-model" | \
                "time-translation --checkpoint") FORMER_WORDS[place]=--model ;;
            "select-hypotheses --sentencepiece-model") FORMER_WORDS[place]=--decode-model ;;
            "encode-dual --"*-sentencepiece-model) FORMER_WORDS[place]=${FORMER_WORDS[place]/sentencepiece-model/model} ;;
            "encode-dual --"*-dictionary) FORMER_WORDS[place]=${FORMER_WORDS[place]/dictionary/dict} ;;
            "cache-teacher --checkpoint") FORMER_WORDS[place]=--teacher-path ;;
            "average --checkpoint") FORMER_WORDS[place]=--checkpoint-dir ;;
            "export --source" | "export --reference") FORMER_WORDS[place]=--check-${FORMER_WORDS[place]#--} ;;
        esac
    done
}

# input_facts INPUT...: one line for each input: its name, the fingerprint of the step that made it, and its digest.
input_facts() {
    local facts="" word producer limit
    for word in "$@"; do
        producer_fingerprint "$word"
        producer=$REPLY limit=$HASH_LIMIT
        [[ $producer != raw ]] || limit=$((1 << 62)) # changes of raw text can be detected only by its content
        portable "$word"
        facts+="input $REPLY $producer "
        digest "$word" "$limit"
        facts+=$REPLY$'\n'
    done
    REPLY=$facts
}

# producer_fingerprint PATH: the fingerprint of the step that made PATH or a parent folder, or "raw".
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

# recorded KEY FILE: the value of fingerprint, digest, start or limits in a .done file; empty if the file does not exist.
recorded() {
    local key value
    REPLY=
    [[ -f $2 ]] || return 0
    while read -r key value; do
        if [[ $key == "$1" ]]; then REPLY=$value; fi
    done <"$2"
}

# digest PATH [LIMIT]: one SHA-256 for a file, or for all files below a folder; of files over LIMIT bytes only the size is used.
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
