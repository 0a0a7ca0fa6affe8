#!/bin/sh
# Builds llama.cpp's bench, quantize and server tools from the sdist of llama-cpp-python, for the parity test and the
# engine benchmark. usage: scripts/build_llama.sh [FOLDER [native|avx512|avx2]]
# FOLDER is .cache/llama.cpp by default; the tools land in FOLDER/build/bin. "native" takes all that the CPU announces;
# where AMX is announced but not permitted (some virtual machines) it crashes, and "avx512" leaves AMX out.
# Needs cmake and ninja on PATH, a C++17 compiler, and pip able to reach a package index. Takes about five minutes.
set -eu
version=0.3.36
folder=${1:-.cache/llama.cpp}
avx2="-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
case ${2:-native} in
    native) flags="-DGGML_NATIVE=ON" ;;
    avx2) flags=$avx2 ;;
    avx512) flags="$avx2 -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON" ;;
    *) echo "build_llama.sh: choose native, avx512 or avx2, not $2" >&2; exit 2 ;;
esac
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
# shellcheck disable=SC2086 # the flags are several words
cmake -S "$folder" -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=Release $flags \
    -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_COMMIT=x
cmake --build "$folder/build" --target llama-bench llama-quantize llama-server llama-batched-bench
