# Everything a newcomer needs: `make demo` and `make test`. Both build .venv first, with nothing but Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test coverage docs chaos bench check format clean

demo: $(VENV)/.demos
	$(BIN)/heterofed demo mnist --rounds 5 --out runs/demo

# In the order of the files: the slow ones, which start many processes, come early, and no core waits long at the end.
TESTS := pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev
	$(BIN)/python -m $(TESTS)

# The same, and which lines no test reaches; it takes longer.
coverage: $(VENV)/.dev
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m $(TESTS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --skip-covered

# The pages of docs/ as a site in site/, which works from the folder; warnings are errors, and nothing is loaded from elsewhere.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Everything that can go wrong, tried on real processes: an hour and more; CHAOS=short: a quarter of it.
# Full disks need root and Linux; elsewhere they are told as "not run".
chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos $(if $(filter short,$(CHAOS)),--short)

# What a round costs beside what it has to, what each collaborator adds, and how much memory a long test takes.
# Half an hour and more; the machine should have nothing else to do. Every script's last line is JSON with --json.
bench: $(VENV)/.demos
	$(BIN)/python -m benchmarks.round
	$(BIN)/python -m benchmarks.parties
	$(BIN)/python -m benchmarks.wire
	$(BIN)/python -m benchmarks.link
	$(BIN)/python -m benchmarks.memory

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q --no-header tests/test_imports.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# torch and torchvision in one step: only then does pip choose two that fit each other.
$(VENV)/.demos: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable ".[demos]"
	touch $@

$(VENV)/.dev: $(VENV)/.demos
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@
