#!/bin/sh
# Builds llama.cpp's bench, quantize and server tools from the sdist of llama-cpp-python, for the parity test and the
# engine benchmark. usage: scripts/build_llama.sh [FOLDER]   (default .cache/llama.cpp; the tools land in FOLDER/build/bin)
# Needs cmake and ninja on PATH, a C++17 compiler, and pip able to reach a package index. Takes about five minutes.
set -eu
version=0.3.36
folder=${1:-.cache/llama.cpp}
if [ -x "$folder/build/bin/llama-server" ]; then
    echo "$folder/build/bin is built already"
    exit 0
fi
for tool in cmake ninja; do
    command -v "$tool" >/dev/null || { echo "build_llama.sh needs $tool; pip install cmake ninja" >&2; exit 2; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --no-deps --no-binary :all: --no-build-isolation -d "$work" "llama-cpp-python==$version" \
    || python3 -m pip download --quiet --no-deps --no-binary :all: -d "$work" "llama-cpp-python==$version"
tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work"
mkdir -p "$(dirname "$folder")"
rm -rf "$folder"
mv "$work"/llama_cpp_python-"$version"/vendor/llama.cpp "$folder"
rm -rf "$folder/.git" # else ninja runs cmake for ever
cmake -S "$folder" -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_COMMIT=x
cmake --build "$folder/build" --target llama-bench llama-quantize llama-server llama-batched-bench
