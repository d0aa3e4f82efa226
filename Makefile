# Every target makes what it needs: `make demo` and `make test` work as the first command.
#   make demo    the sample in examples/ from raw documents to a trained tiny model
#   make test    the test suite, a process a core
#   make test-matrix   what holds for many ranks, workers, nodes, kinds, combinations of options
#   make test-latest   quick tests and the demo with the newest versions that pyproject.toml allows
#   make lint    format, lint, types, import direction (changes nothing)
#   make bench   speed and memory against their goals, pass or fail (20 minutes; needs openssl)
#   make format  rewrite the sources as `make lint` wants them
#   make schemas, make cli-surface   regenerate what the tests compare with
PYTHON ?= python3
VENV := .venv
LATEST := .venv-latest
BIN := $(VENV)/bin
# Whole files go to the workers, as conftest.py orders and counts them.
TESTS := -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
# Every process that a test starts would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE

NEW_ENOUGH := $(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "mmdata needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'

# Where a new version of a dependency shows: what reads, writes and decodes by one, and the model.
LATEST_TESTS := tests/schemas tests/mmdata/images tests/mmdata/shards tests/mmdata/training_view \
    tests/pipelines/laion/test_convert_laion.py tests/flamingo/telemetry $(patsubst %,\
    tests/flamingo/data/test_%.py,chunks decode mix stream labels) $(patsubst %,\
    tests/flamingo/modules/test_%.py,adapters language_models lm_cache lm_files packed quantised \
    vision) $(patsubst %,tests/flamingo/models/flamingo/test_%.py,build generation parity)

.PHONY: demo test test-latest latest-tests latest-demo test-matrix lint format bench schemas cli-surface clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed-demo
	$(BIN)/python examples/demo.py

# The report is tested in a browser: one that is installed, else playwright's own where the network
# gives it. Without one those tests are skipped and say why. About 12 minutes on two quiet cores.
test: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.browser
	$(BIN)/python $(TESTS) -m "not matrix"

# About 15 minutes on two quiet cores.
test-matrix: $(VENV)/.installed-dev
	$(BIN)/python $(TESTS) -m matrix

# About 5 minutes on two quiet cores, installation included, where .venv has the same torch already.
test-latest: $(LATEST)/bin/python
	@echo "bringing $(LATEST) to the newest versions that pyproject.toml allows"
	@$(LATEST)/bin/python -m tests.newest install
	@$(LATEST)/bin/python -m tests.newest tell
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target latest-tests latest-demo

latest-tests:
	$(LATEST)/bin/python $(TESTS) -m "not slow and not matrix and not ray" $(LATEST_TESTS)

latest-demo:
	OMP_NUM_THREADS=1 $(LATEST)/bin/python examples/demo.py build/demo-latest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --num-workers 2
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

schemas: $(VENV)/.installed-dev
	$(BIN)/python -m schemas.generate

cli-surface: $(VENV)/.installed-dev
	$(BIN)/python -m tests.architecture.surface

clean:
	rm -rf $(VENV) $(LATEST) build dist .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Stamps: an install is repeated only when what it was made from changes.
$(BIN)/python:
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)

$(LATEST)/bin/python:
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(LATEST)
	@$@ -m pip --disable-pip-version-check install --quiet packaging

$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing mmdata and torch into $(VENV) (once; minutes)"
	@$(PIP) -e '.[train]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing mmdata, torch and the tools into $(VENV) (once; minutes)"
	@$(PIP) -e '.[dev,download,train]'
	@touch $(VENV)/.installed-demo $@
