# make demo, make test: each sets up all it needs in .venv, from the lock file.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Compiled modules halve the start-up time, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check soak mutants bench man record clean

demo: $(READY)
	$(BIN)/clickpipe run recipes/trending.toml --format table

# Three at a time also on two cores: a third of the time tests wait for disks and for what they have started.
test: $(READY)
	$(BIN)/python -m pytest -n 3

check: $(READY)
	$(BIN)/ruff check clickpipe tests sample_data
	$(BIN)/ruff format --check --diff clickpipe tests sample_data
	$(BIN)/mypy

# What takes an hour: random kills, and every property with all its examples.
soak: $(READY)
	CLICKPIPE_THOROUGH=1 $(BIN)/python -m pytest -n 2 -m "slow or not slow"

# Mistakes in the checkpoint protocol, made on purpose: the tests must see each. The quick ones are part of make test.
mutants: $(READY)
	CLICKPIPE_THOROUGH=1 $(BIN)/python tests/mutants.py

# Rewrites the expectations of the cases; the diff is the review.
record: $(READY)
	$(BIN)/python -m pytest -n 2 tests/test_cases.py --record

bench: $(READY)
	$(BIN)/python tests/bench/bench.py

# The pages that are made from the code, beside the written ones.
man: $(READY)
	$(BIN)/python -m clickpipe help --man-pages man

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("clickpipe needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
