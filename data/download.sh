#!/usr/bin/env bash
# Purpose: downloads and checks the public corpora that the configurations use. Existing files are kept, and files are written
#          under a temporary name: repeat the command to resume an interrupted download.
# Inputs:  CORPUS: multi30k or wmt; a network; for wmt also sacrebleu, which scripts/bootstrap.sh installs.
# Outputs: DIR (default data/raw/CORPUS) with pairs of files NAME.en and NAME.cs, one sentence a line.
# Example: bash data/download.sh multi30k
# The terms of use are in data/README.md.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
SACREBLEU=${SACREBLEU:-$ROOT/.venv/bin/sacrebleu}

die() {
    printf 'download.sh: error: %s\n' "$*" >&2
    exit 1
}

# fetch URL FILE
fetch() {
    [[ ! -s $2 ]] || return 0
    printf 'fetch %s\n' "$1"
    curl --fail --location --silent --show-error --retry 3 --output "$2.tmp" "$1" || {
        rm -f "$2.tmp"
        die "cannot fetch $1 (is there a network? the same command goes on from here)"
    }
    mv "$2.tmp" "$2"
}

# make FILE COMMAND...: writes the command's output to FILE, unless the command fails.
make() {
    [[ ! -s $1 ]] || return 0
    "${@:2}" >"$1.tmp" || {
        rm -f "$1.tmp"
        die "cannot make $1: '${*:2}' failed"
    }
    mv "$1.tmp" "$1"
}

# expect_pair PREFIX [LINES]: checks that both sides have equally many lines (LINES, if given). A wrong pair is removed, so that the
# next run downloads it again.
expect_pair() {
    local en cs
    en=$(awk 'END { print NR }' "$1.en")
    cs=$(awk 'END { print NR }' "$1.cs")
    if ((en == 0 || en != cs || en != ${2:-$en})); then
        rm -f "$1.en" "$1.cs"
        die "$1: both sides must have ${2:-as many} lines, got $en (en) and $cs (cs); removed"
    fi
    printf 'ready %s.{en,cs}: %s lines\n' "$1" "$en"
}

# multi30k_part NAME LINES
multi30k_part() {
    local lang url=https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw
    for lang in en cs; do
        [[ -s $DIR/$1.$lang ]] || fetch "$url/$1.$lang.gz" "$DIR/$1.$lang.gz"
        make "$DIR/$1.$lang" gzip -dc "$DIR/$1.$lang.gz"
        rm -f "$DIR/$1.$lang.gz"
    done
    expect_pair "$DIR/$1" "$2"
}

# tsv_corpus NAME URL: a gzipped table with Czech in the first column and English in the second.
tsv_corpus() {
    if [[ ! -s $DIR/$1.cs || ! -s $DIR/$1.en ]]; then
        fetch "$2" "$DIR/$1.tsv.gz"
        make "$DIR/$1.cs" column "$DIR/$1.tsv.gz" 1
        make "$DIR/$1.en" column "$DIR/$1.tsv.gz" 2
        rm -f "$DIR/$1.tsv.gz"
    fi
    expect_pair "$DIR/$1"
}

column() { gzip -dc "$1" | cut -f "$2"; }

common_crawl() {
    local archive=$DIR/commoncrawl.tgz lang
    if [[ ! -s $DIR/commoncrawl.cs || ! -s $DIR/commoncrawl.en ]]; then
        fetch https://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz "$archive"
        for lang in en cs; do make "$DIR/commoncrawl.$lang" tar -xzOf "$archive" "commoncrawl.cs-en.$lang"; done
        rm -f "$archive"
    fi
    expect_pair "$DIR/commoncrawl"
}

# newstest YEAR LINES: the test set of the news task, from sacreBLEU.
newstest() {
    [[ -x $SACREBLEU ]] || die "$SACREBLEU is needed for newstest$1; run bash scripts/bootstrap.sh first"
    make "$DIR/newstest$1.en" "$SACREBLEU" --test-set "wmt${1#20}" --language-pair en-cs --echo src
    make "$DIR/newstest$1.cs" "$SACREBLEU" --test-set "wmt${1#20}" --language-pair en-cs --echo ref
    expect_pair "$DIR/newstest$1" "$2"
}

CORPUS=${1:-}
if [[ $CORPUS == -h || $CORPUS == --help ]]; then
    sed -n -e '1d' -e '/^#/!q' -e 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit
fi
DIR=${2:-$ROOT/data/raw/$CORPUS}
[[ $CORPUS == multi30k || $CORPUS == wmt ]] || die "CORPUS must be multi30k or wmt, got '$CORPUS' (usage: download.sh CORPUS [DIR])"
command -v curl >/dev/null || die "curl is needed; install it"
mkdir -p "$DIR"

if [[ $CORPUS == multi30k ]]; then
    multi30k_part train 29000
    multi30k_part val 1014
    multi30k_part test_2016_flickr 1000
else
    newstest 2018 2983
    newstest 2019 1997
    tsv_corpus europarl-v10 https://www.statmt.org/europarl/v10/training/europarl-v10.cs-en.tsv.gz
    tsv_corpus news-commentary-v16 https://data.statmt.org/news-commentary/v16/training/news-commentary-v16.cs-en.tsv.gz
    common_crawl
    printf 'CzEng 2.0 needs a registration and is not fetched; data/README.md says how to add it.\n'
fi
