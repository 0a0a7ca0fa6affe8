#!/bin/sh
# `make gpu-check`: compiles the CUDA module for sm_80, sm_90a and sm_100, imports it, runs tests/gpu, and bench/gpu where a GPU is.
#   scripts/gpu_check.sh [PYTHON]        PYTHON (.venv/bin/python) needs pytest, hypothesis and numpy
# nvcc, cmake and pybind11 are taken from this machine; what is absent comes from the package index into build/cuda-toolkit.
set -eu
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
case $python in /*) ;; */*) python=$PWD/$python ;; esac
toolkit=$PWD/build/cuda-toolkit
nvcc_packages="nvidia-cuda-nvcc==13.0.* nvidia-nvvm==13.0.* nvidia-cuda-crt==13.0.* nvidia-cuda-runtime==13.0.* nvidia-cuda-cccl==13.0.*"

install() {  # names of packages
  echo "gpu-check: installing $* into build/cuda-toolkit"
  if command -v "$(dirname "$python")/uv" >/dev/null 2>&1; then
    "$(dirname "$python")/uv" pip install --quiet --python "$python" --target "$toolkit" "$@"
  elif command -v uv >/dev/null 2>&1; then
    uv pip install --quiet --python "$python" --target "$toolkit" "$@"
  else
    "$python" -m pip install --quiet --target "$toolkit" "$@"
  fi
}

PATH="$PATH:$toolkit/nvidia/cu13/bin:$toolkit/bin:/usr/local/cuda/bin"
PYTHONPATH="$PWD:$PWD/build/cuda:$PWD/python:$toolkit${PYTHONPATH:+:$PYTHONPATH}"
export PATH PYTHONPATH
# shellcheck disable=SC2086  # a list of names
command -v nvcc >/dev/null 2>&1 || install $nvcc_packages
command -v cmake >/dev/null 2>&1 || install cmake
"$python" -c "import pybind11" 2>/dev/null || install "pybind11>=3.1,<4"

nvcc --version | tail -n 2
cmake -S csrc/cuda -B build/cuda -DPython="$python" >build/cuda-cmake.log 2>&1 || { cat build/cuda-cmake.log; exit 1; }
cmake --build build/cuda

"$python" - <<'PROGRAM'
import _cuda

status, count = _cuda.device_count()
print(f"gpu-check: compiled for sm_{_cuda.ARCHITECTURES.replace(' ', ', sm_')}; imported; ", end="")
print(f"{count} device(s)" if status == 0 else f"no device: error {status}, {_cuda.error_words(status)}")
PROGRAM

if "$python" -c "import mypy" 2>/dev/null; then
  cp csrc/cuda/_cuda.pyi build/cuda/
  (cd build/cuda && "$python" -m mypy.stubtest _cuda)
fi
"$python" -m pytest -q -rs -p no:cacheprovider tests/gpu
if "$python" -c "import _cuda, sys; sys.exit(_cuda.device_count()[1] == 0)"; then
  "$python" bench/gpu/bench_kernels.py
else
  echo "gpu-check: bench/gpu was not run, because there is no GPU"
fi
