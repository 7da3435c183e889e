# make demo   the main job on embedded data: train, count, compare, report.html
# make test   lint, format check, type check and the tests
# Each makes .venv and installs the package first if need be. PYTHON chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin
KERNELS := neuroconv/kernels/native/*.cpp neuroconv/kernels/native/*.h
STAMP := .venv/.installed

.PHONY: demo test test-all lint format clean

demo: $(STAMP)
	$(BIN)/neuroconv demo

# One thread a process: OpenMP threads of several processes would wait for one another.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal -m "not slow"

test-all: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(KERNELS)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(KERNELS)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"neuroconv needs Python 3.11 or later; this is {sys.version}. Say make PYTHON=..."'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
