# rackcast: `make demo` shows it, `make test` proves it. Both set up everything they need in .venv first.
PYTHON ?= $(shell for v in 3.11 3.12 3.13 3; do command -v python$$v >/dev/null 2>&1 && { echo python$$v; break; }; done)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input -q
OUT    := out

.PHONY: setup demo test check bench accuracy app format clean

$(VENV)/.base: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "rackcast needs python3.11 or newer on the PATH"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "rackcast needs Python 3.11 or newer, $(PYTHON) is older"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) ..."
	@$(PIP) install -e . -c constraints.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@$(PIP) install -e '.[dev]' -c constraints.txt
	@touch $@

$(VENV)/.torch: $(VENV)/.dev
	@$(PIP) install 'torch==2.13.0' -c constraints.txt
	@touch $@

setup: $(VENV)/.base

demo: $(VENV)/.base
	@$(BIN)/rackcast run scenarios/gpt3-175b-1024-a100.toml --report $(OUT)/gpt3-175b.html

test: $(VENV)/.torch
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

accuracy: $(VENV)/.base
	@$(BIN)/python -m benchmarks.accuracy

bench: $(VENV)/.base
	@$(BIN)/python -m benchmarks

app: $(VENV)/.base
	@$(BIN)/rackcast app

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OUT) .mypy_cache .pytest_cache .ruff_cache
