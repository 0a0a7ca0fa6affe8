#!/bin/sh
# Builds llama.cpp's server, bench, quantize and perplexity tools from the sdist of llama-cpp-python, for the slow tests of parity and
# the engine benchmarks. usage: scripts/build_llama.sh [FOLDER [native|avx2]]
# FOLDER is .cache/llama.cpp by default, where tests and benchmarks look; the tools land in FOLDER/build/bin. "native"
# names the sets of this CPU one by one, as the released binaries do, and leaves AMX out: where AMX is announced and not
# permitted (many virtual machines) ggml's use of it ends in an illegal instruction. Needs Python 3.11 with venv, a C++17
# compiler, and pip able to reach a package index; cmake and ninja are taken from there if PATH has none. Takes nine
# minutes of processor time. Started again, it goes on.
set -eu
version=0.3.36
folder=${1:-.cache/llama.cpp}
case ${2:-native} in
    native) target=-march=native ;;
    avx2) target="-mavx2 -mfma -mf16c -mbmi2" ;;
    *) echo "build_llama.sh: choose native or avx2, not $2" >&2; exit 2 ;;
esac
# shellcheck disable=SC2086 # the target is several words
macros=$(echo | "${CXX:-c++}" $target -dM -E -x c++ -)
flags=-DGGML_NATIVE=OFF
for set in AVX:AVX AVX2:AVX2 FMA:FMA F16C:F16C BMI2:BMI2 AVX512F:AVX512 AVX512VBMI:AVX512_VBMI \
    AVX512VNNI:AVX512_VNNI AVX512BF16:AVX512_BF16; do
    case $macros in
        *"__${set%:*}__ "*) flags="$flags -DGGML_${set#*:}=ON" ;;
        *) flags="$flags -DGGML_${set#*:}=OFF" ;;
    esac
done
if [ -x "$folder/build/bin/llama-server" ] && [ -x "$folder/build/bin/llama-perplexity" ]; then
    echo "$folder/build/bin is built already"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/tools"
pip="$work/tools/bin/python -m pip --quiet --disable-pip-version-check"
for tool in cmake ninja; do
    command -v "$tool" >/dev/null || $pip install "$tool"
done
PATH=$PATH:$work/tools/bin
if [ ! -f "$folder/CMakeLists.txt" ]; then
    echo "fetching the source of llama-cpp-python $version"
    $pip download --no-deps --no-binary :all: -d "$work" "llama-cpp-python==$version"
    tar -xzf "$work"/llama_cpp_python-"$version".tar.gz -C "$work"
    rm -rf "$work/llama_cpp_python-$version/vendor/llama.cpp/.git" # else ninja runs cmake for ever
    mkdir -p "$(dirname "$folder")"
    rm -rf "$folder"
    mv "$work/llama_cpp_python-$version/vendor/llama.cpp" "$folder"
fi
# shellcheck disable=SC2086 # the flags are several words
cmake -S "$folder" -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=Release $flags \
    -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_COMMIT=x >"$folder/configure.log"
cmake --build "$folder/build" --parallel "$(nproc)" \
    --target llama-bench llama-quantize llama-server llama-batched-bench llama-perplexity >"$folder/build.log" 2>&1 \
    || { tail -n 30 "$folder/build.log" >&2; exit 1; }
echo "$folder/build/bin: llama-server, llama-bench, llama-batched-bench, llama-quantize, llama-perplexity"
