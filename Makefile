# Every line below is a plain command: make prints each one before it runs it, and you can type it yourself.
PYTHON ?= python3
BIN = .venv/bin

# Two processes; a file's tests stay together, as they share what they have made.
WORKERS = -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test check static fast train clean

# What avcap writes about the example videos. Offline, but for pip on the first run.
demo: .venv/installed
	$(BIN)/avcap caption examples/*.mp4

# All tests.
test: .venv/installed-dev
	$(BIN)/pytest $(WORKERS)

# What to run before a commit: lint and types, and beside them all tests but the slow ones.
check: .venv/installed-dev
	$(MAKE) --no-print-directory --jobs=2 static fast

static: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy src

fast: .venv/installed-dev
	$(BIN)/pytest $(WORKERS) -m "not slow"

# The shipped models from nothing: more than an hour on two cores. Stopped and started again, it goes on.
train: .venv/installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/train_tiny.sh

# Everything that make has made. Training runs in out/ stay.
clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
	find src tests bench docs examples -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "got $$($(PYTHON) --version), wanted Python 3.11 or newer; try: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install -e .
	@touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install -e '.[dev]'
	@touch .venv/installed $@
