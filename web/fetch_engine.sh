#!/usr/bin/env bash
# Purpose: fetches the engine of the page: Marian in WebAssembly, the npm package @browsermt/bergamot-translator (MPL-2.0).
# Inputs:  none; npm and a network. Does nothing if the engine is there.
# Outputs: web/engine/bergamot-translator-worker.{js,wasm}, web/engine/package.json
# Example: bash web/fetch_engine.sh
# shellcheck source=scripts/lib/process.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib/process.sh"

PACKAGE=@browsermt/bergamot-translator
VERSION=0.4.9
SHA512=6cdbae0b033f267b0861008a5dc60a153e10739bcb32807c35bbf3f1178882cef1cde6caf126be47c8842bc98bbcd05efd6699eb3acf69442294bb114ff79af1
NAMES=(worker/bergamot-translator-worker.js worker/bergamot-translator-worker.wasm package.json)

[[ $# -eq 0 ]] || die "takes no arguments, got: $*"
cd "$ROOT/web"
if [[ -d engine ]] && grep -qs "\"version\": \"$VERSION\"" engine/package.json; then
    say "$PACKAGE $VERSION is in web/engine"
    exit
fi
command -v npm > /dev/null || die "npm is not installed: apt-get install npm"

new=$(mktemp -d "$PWD/engine.XXXXXX.tmp")
trap 'rm -rf -- "$new"' EXIT
npm pack --silent --fetch-retries 1 --pack-destination "$new" "$PACKAGE@$VERSION" > /dev/null ||
    die "npm cannot fetch $PACKAGE $VERSION"
archive=$new/browsermt-bergamot-translator-$VERSION.tgz
sha512sum --check --status <<< "$SHA512  $archive" ||
    die "$PACKAGE $VERSION: its SHA-512 must be $SHA512, is $(sha512sum "$archive" | cut -d ' ' -f 1)"
mkdir "$new/engine"
tar --extract --gzip --file "$archive" --directory "$new" "${NAMES[@]/#/package/}"
mv "${NAMES[@]/#/$new/package/}" "$new/engine"
rm -rf engine
mv "$new/engine" engine
say "$PACKAGE $VERSION is in web/engine"
