# shellcheck shell=bash
# Purpose: verifies at every stage that no sentence is lost: numbers of lines and of binarized sentences must agree.
# Inputs:  text files, folders made by fairseq-preprocess.
# Outputs: none; on a mismatch one line with the two files and their counts, and exit status 1.
# Example: check_same_lines "$WORK_DIR/encoded/train.en" "$WORK_DIR/encoded/train.cs"

# count_lines FILE: counts a last line without a newline, too (wc does not).
count_lines() { awk 'END { print NR }' "$1"; }

# check_same_lines FIRST OTHER...: all files must have as many lines as the first one.
check_same_lines() {
    [[ $DRY_RUN == 0 ]] || return 0
    local first=$1 other expected found
    expected=$(count_lines "$first")
    for other in "${@:2}"; do
        found=$(count_lines "$other")
        ((found == expected)) || die "line counts differ: $first has $expected lines, $other has $found"
    done
}

# count_sentences FILE.idx: prints the number of sequences, a 64-bit integer after magic number, version and type in the header
# (fairseq.data.indexed_dataset.MMapIndexedDataset.Index: 9 + 8 + 1 bytes).
count_sentences() { od -An -t u8 -j 18 -N 8 "$1" | tr -d ' '; }

# check_binarized SPLIT SOURCE_TEXT FOLDER: both sides of a split must have as many sentences as the text has lines.
check_binarized() {
    local split=$1 text=$2 folder=$3 lang expected found
    expected=$(count_lines "$text")
    for lang in "$SOURCE_LANG" "$TARGET_LANG"; do
        found=$(count_sentences "$folder/$split.$SOURCE_LANG-$TARGET_LANG.$lang.idx")
        ((found == expected)) || die "$text has $expected lines, the binarized $split.$lang has $found sentences"
    done
}

# piece_limit: sets REPLY to the maximum number of subwords in a sentence: the smallest of 1024 positions and the batch sizes, minus
# one for </s>.
piece_limit() {
    local tokens
    REPLY=1024
    for tokens in "$TEACHER_MAX_TOKENS" "$STUDENT_MAX_TOKENS" "$TRANSLATE_MAX_TOKENS"; do
        if ((tokens < REPLY)); then REPLY=$tokens; fi
    done
    REPLY=$((REPLY - 1))
}

# check_pieces FILE...: no line may exceed piece_limit; fairseq would abort in the middle of a validation or translation.
check_pieces() {
    local file long
    piece_limit
    for file in "$@"; do
        long=$(awk -v limit="$REPLY" 'NF > limit { print "line " NR " has " NF " pieces"; exit }' "$file")
        [[ -z $long ]] || die "$file, $long, at most $REPLY are possible (1023, or the smallest of TEACHER_MAX_TOKENS," \
            "STUDENT_MAX_TOKENS and TRANSLATE_MAX_TOKENS, minus 1); split the line or raise these"
    done
}

# tell_long_pairs SOURCE TARGET: reports how many training pairs exceed piece_limit; fairseq-train skips them.
tell_long_pairs() {
    local count
    piece_limit
    count=$(awk -v limit="$REPLY" '
        FILENAME == ARGV[1] { if (NF > limit) long[FNR]; next }
        NF > limit || FNR in long { count++ }
        END { print count + 0 }
    ' "$1" "$2")
    ((count == 0)) || say "training pairs of more than $REPLY pieces, which fairseq-train leaves out: $count"
}
