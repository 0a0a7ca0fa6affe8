# Highrise: `make up` builds and serves the assistant, `make test` passes the tests. Both install what they need into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(shell find rust csrc -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.cpp' -o -name '*.h' \)) Cargo.toml Cargo.lock pyproject.toml
CPP := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.DEFAULT_GOAL := help
.PHONY: help setup build up test test-all lint format bench wheel gpu-check lock clean

help:  ## print the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/ -/' | sort

$(VENV)/.installed: requirements.lock
	@scripts/check_machine.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.built: $(VENV)/.installed $(NATIVE)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/maturin develop --release --uv --quiet 2>.venv/build.log \
	    || { cat .venv/build.log; exit 1; }
	@touch $@

setup: $(VENV)/.installed  ## make .venv and install the pinned packages
build: $(VENV)/.built  ## compile the native modules in release mode and install the package, editable

up: build  ## build the assistant and serve it on 127.0.0.1:8080 (ARGS=--check asks it three questions and leaves)
	$(BIN)/highrise up $(ARGS)

test: build  ## the default tests: Rust, then Python, on real weights
	@scripts/install_debian.sh
	$(BIN)/highrise fetch smollm2-135m minilm-l6
	cargo test --release --quiet --workspace --exclude highrise-py
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-all: build  ## the default tests and the long ones
	@scripts/install_debian.sh all
	@scripts/build_llama.sh || echo "llama.cpp was not built, so tests/serve/test_llama_parity.py is skipped"
	$(BIN)/highrise fetch smollm2-135m minilm-l6 qwen2.5-coder-0.5b
	$(BIN)/uv pip install --quiet --python $(BIN)/python kubernetes-validate==1.37.0
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps litellm==1.109.1
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock "pyspark[sql]==4.3.0" "ray[data]==2.60.0"
	@scripts/install_stores.sh
	cargo test --release --quiet --workspace --exclude highrise-py
	$(BIN)/python -m pytest --timeout 1200 $(ARGS)

lint: build  ## ruff, mypy, stubs, rustfmt, clippy, clang-format: warnings are errors
	$(BIN)/ruff check python tests bench
	$(BIN)/ruff format --check python tests bench
	$(BIN)/mypy
	$(BIN)/python scripts/stubtest.py
	cargo fmt --check
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --release --workspace --all-targets --quiet -- -D warnings
	$(if $(CPP),$(BIN)/clang-format --dry-run --Werror $(CPP))

format: setup  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix python tests bench
	$(BIN)/ruff format python tests bench
	cargo fmt
	$(if $(CPP),$(BIN)/clang-format -i $(CPP))

bench: build  ## the micro-benchmarks beside their peers, as one table
	@mkdir -p .benchmarks
	$(BIN)/python -m pytest bench --ignore=bench/gpu --benchmark-only --benchmark-json=.benchmarks/latest.json -q $(ARGS)
	$(BIN)/python bench/report.py .benchmarks/latest.json

wheel: setup  ## a manylinux wheel and an sdist in dist/, each installed and tried in an empty environment
	scripts/build_wheel.sh $(BIN)

gpu-check: setup  ## compile the CUDA module; run tests/gpu and bench/gpu where a GPU is
	scripts/gpu_check.sh

lock: setup  ## resolve the pinned packages again
	$(BIN)/uv pip compile --quiet pyproject.toml --extra all --extra cuda --group test --group lint --group bench --group build --universal \
	    --generate-hashes --no-emit-index-url --custom-compile-command "make lock" --output-file requirements.lock

clean:  ## remove everything that was built (not the model cache)
	rm -rf $(VENV) target dist build .benchmarks .pytest_cache .mypy_cache .ruff_cache .hypothesis
