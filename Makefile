# make demo: make data, train and evaluate a small model, and draw its pictures; SEED=2 makes other data and weights
# make tasks: the gain of pre-training on fine-tuned tasks, after make demo; about half an hour
# make test: the tests except the slow ones; make test-slow: the slow tests; make test-all: both
# make lint: linter, formatter and type checker
# make docs: the documentation as a site, in build/site; a broken link is an error
# make torture: inject faults into every command for TORTURE seconds: kills, power cuts, full disks, damage, two at once
# make fuzz: coverage-guided fuzzing of the parsers, with atheris
# make test-wheel: test the wheel in an empty environment, outside this folder
# make test-oldest: all tests on the oldest versions that pyproject.toml permits, in .venv-oldest
# make test-newest: all tests on the newest versions that it permits, in .venv-newest
# make lock: make lock.txt and oldest.txt of locks/ again
#
# Each target installs what it needs; PYTHON=python3.12 selects another interpreter. LOCK is a file of constraints for
# pip with the versions; with LOCK= pip chooses them. VENV names another environment, which may have other versions:
#     make test VENV=.venv-other LOCK=other.txt

PYTHON ?= python3
VENV ?= .venv
LOCK ?= locks/lock.txt
BIN := $(VENV)/bin
DEMO ?= demo
SEED ?= 1
RUN := $(BIN)/prior-fast
INSTALL = $(BIN)/python -m pip install --quiet $(addprefix --constraint ,$(LOCK))
TORTURE := 1200
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

# One file of versions serves all Python versions; uv can make such a file.
UV := uv==0.13.9
LOCKING := --quiet --universal --python-version 3.11 --fork-strategy fewest --all-extras --upgrade \
	--only-binary :all: --no-annotate --custom-compile-command "make lock" pyproject.toml locks/lock.in

.PHONY: setup build lint docs test test-slow test-all torture fuzz test-oldest test-newest test-wheel lock demo tasks clean

setup: $(VENV)/.installed

# Made again if pyproject.toml or LOCK is newer. The stamp is written last: an environment without it is incomplete.
$(VENV)/.installed: pyproject.toml $(LOCK)
	@test ! -e $(VENV) || test -f $(VENV)/pyvenv.cfg || { echo "$(VENV) is no virtual environment: remove it"; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(INSTALL) $(addprefix --build-constraint ,$(LOCK)) --editable ".[dev]"
	touch $@

# Builds only what is out of date.
build: setup
	$(BIN)/prior-fast build

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	rm -rf build/site
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs/site . build/site

test: build
	$(PYTEST) -m "not slow"

test-slow: build
	$(PYTEST) -m slow

test-all: test test-slow

torture: build
	$(BIN)/python -m tests.torture.run --seconds $(TORTURE)
	$(BIN)/python -m tests.torture.images.reading 0 200

fuzz: build
	$(INSTALL) "atheris>=3,<4"
	$(BIN)/python tests/torture/fuzz/run.py --seconds 60

test-oldest:
	$(MAKE) test-all VENV=.venv-oldest LOCK=locks/oldest.txt

test-newest:
	$(MAKE) test-all VENV=.venv-newest LOCK=

test-wheel:
	$(PYTHON) tests/install/wheel.py $(LOCK)

lock:
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/python -m pip install --quiet $(UV)
	build/lock/bin/uv pip compile $(LOCKING) --output-file locks/lock.txt
	build/lock/bin/uv pip compile $(LOCKING) --output-file locks/oldest.txt --resolution lowest-direct
	rm -rf build/lock

demo: build
	rm -rf $(DEMO)
	$(RUN) phantom --out $(DEMO)/phantom --studies 4500 --size 224 --seed $(SEED)
	$(RUN) prepare mimic --images $(DEMO)/phantom --out $(DEMO)/prepared
	$(RUN) train --preset tiny --data $(DEMO)/prepared --out $(DEMO)/run seed=$(SEED)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync demo-scores demo-pictures
	@echo "Open $(DEMO)/pictures/index.html to see what the model learned."
	@$(RUN) bench demo $(DEMO) $(CEILING)

# What the image encoder reaches with labels was measured on the dataset of seed 1.
CEILING := $(if $(filter 1,$(SEED)),--ceiling bench/results/cpu-2-cores/demo-ceiling.json)

# The evaluations of `make demo`, after its training, in two processes at once: half of each is one thread's work.
.PHONY: demo-scores demo-pictures
EVALUATE := $(BIN)/python -m prior_fast.bench.demo.evaluate $(DEMO)

demo-scores:
	@$(EVALUATE) zero-shot retrieval generation

demo-pictures:
	@$(EVALUATE) bank pictures

tasks: build
	test -d $(DEMO)/run || $(MAKE) demo
	PRIOR_FAST=$(RUN) bash bench/tasks.sh $(DEMO)/run $(DEMO)/tasks

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest $(DEMO) prior_fast/_C
