#!/bin/sh
# Says in one sentence what a fresh machine lacks, before anything is installed. usage: scripts/check_machine.sh PYTHON
python=$1
fail() { echo "highrise: $1" >&2; exit 2; }
command -v "$python" >/dev/null || fail "no $python here; install Python 3.11 or newer, or say make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || fail "$("$python" --version) is too old; Python 3.11 or newer is needed"
"$python" -c 'import venv, ensurepip' 2>/dev/null \
    || fail "$python has no venv module; install it (Debian: apt-get install python3-venv)"
command -v cargo >/dev/null || fail "no cargo here; install Rust 1.83 or newer"
command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null \
    || fail "no C++ compiler here; install one that knows C++17"
