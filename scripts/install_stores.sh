#!/bin/sh
# Installs the object stores that tests/data/clouds.py starts: Azurite by npm, fake-gcs-server by go. Always ends with 0: where one
# cannot be installed its tests skip themselves and say so. Does nothing when both are there.
set -u

stores="$HOME/.cache/highrise/stores"

install() {  # PROGRAM TOOL COMMAND...
  program=$1 tool=$2
  shift 2
  if [ -e "$stores/$program" ] || command -v "${program##*/}" >/dev/null 2>&1; then
    return
  fi
  if ! command -v "$tool" >/dev/null 2>&1; then
    echo "install_stores: no $tool here, so the tests that need ${program##*/} are skipped"
    return
  fi
  echo "install_stores: installing ${program##*/}"
  log=$(mktemp)
  timeout 600 "$@" >"$log" 2>&1 ||
    echo "install_stores: $tool failed ($(tail -n 1 "$log")); the tests that need ${program##*/} are skipped"
  rm -f "$log"
}

mkdir -p "$stores"
install node_modules/.bin/azurite-blob npm npm install --no-audit --no-fund --prefix "$stores" azurite@3.35.0
install bin/fake-gcs-server go env GOBIN="$stores/bin" go install github.com/fsouza/fake-gcs-server@v1.56.1
exit 0
