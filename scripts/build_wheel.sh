#!/bin/sh
# Builds wheel and sdist into dist/, installs each into an empty environment, and tries both there.
# usage: scripts/build_wheel.sh BIN_FOLDER_OF_THE_BUILD_ENVIRONMENT
set -eu
bin=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
rm -rf dist
PATH="$bin:$PATH" "$bin/maturin" build --release --strip --out dist --interpreter "$bin/python" --quiet
"$bin/maturin" sdist --out dist
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for artefact in dist/*.whl dist/*.tar.gz; do
    "$bin/python" -m venv "$work/env"
    "$bin/uv" pip install --quiet --python "$work/env/bin/python" "$root/$artefact"
    (cd "$work" && env/bin/python "$root/scripts/smoke.py" && env/bin/highrise --version)
    rm -rf "$work/env"
    echo "ok: $artefact"
done
ls -l dist
