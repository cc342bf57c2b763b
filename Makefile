# Everything a fresh machine needs is Python 3.11 or newer, a C linker and cargo.
# `make demo` and `make test` do all the set-up themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := UV_LINK_MODE=copy $(BIN)/uv
RUST := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
SOURCES := $(RUST) $(shell find python -type f ! -name '*.pyc' ! -name '*.so') pyproject.toml README.md

.PHONY: help tools build develop demo test test-rust test-python lint bench generate docs image lock sbom audit clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

tools: # say what is missing before anything fails in a riddle
	@PYTHON=$(PYTHON) sh scripts/check_tools.sh

$(VENV)/.requirements: requirements/dev.txt | tools
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	$(UV) pip install --quiet --python $(BIN)/python -r requirements/dev.txt
	touch $@

$(VENV)/.wheel: $(VENV)/.requirements $(SOURCES)
	rm -rf .build/wheel python/bascule/_core.*.so
	$(BIN)/maturin build --release --quiet --interpreter $(BIN)/python --out .build/wheel
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --reinstall .build/wheel/*.whl
	touch $@

build: $(VENV)/.wheel ## make the virtual environment and install the compiled wheel in it

develop: $(VENV)/.requirements ## install in place, built fast instead of to be fast
	rm -f $(VENV)/.wheel
	$(BIN)/maturin develop --profile quick --quiet

demo: build ## run the shop and take a tour through its gateway
	$(BIN)/bascule demo

test: test-rust test-python ## run every test, on asyncio and trio

test-rust: tools
	cargo test --quiet --workspace --exclude bascule-py

test-python: build
	$(BIN)/python scripts/run_tests.py

lint: build ## check style, types, layers, stubs and that generated code is current
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy python/bascule python/bascule_shop benches scripts
	$(BIN)/python -m mypy.stubtest bascule._core
	$(BIN)/lint-imports
	$(BIN)/python scripts/generate.py --check
	cargo fmt --check
	cargo clippy --quiet --workspace --all-targets -- --deny warnings

bench: build ## measure against the peers, in one run
	$(BIN)/python -m benches

generate: build ## write the generated code anew
	$(BIN)/python scripts/generate.py

docs: build ## build the documentation as a site, in .build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

image: tools ## build the container image by buildah, and look at what came out
	$(BIN)/python scripts/image.py

lock: $(VENV)/.requirements ## pin anew what the image installs
	$(BIN)/python scripts/lock.py

sbom: build ## write the bills of materials of a release to .build/sbom
	$(BIN)/python scripts/sbom.py

audit: $(VENV)/.requirements ## look for known weaknesses; it fails where their databases cannot be reached
	$$($(BIN)/python scripts/provision.py pip-audit) --strict --disable-pip --require-hashes -r requirements/runtime.txt
	cargo deny check

clean: ## remove what was built
	rm -rf $(VENV) .build target
