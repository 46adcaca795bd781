# make demo: from nothing to a trained, evaluated small model and its pictures
# make tasks: what pre-training is worth on fine-tuned tasks, after make demo; about half an hour
# make test: linter, type checker and all tests
# Both set up .venv by themselves; PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo
RUN := $(BIN)/prior-fast

.PHONY: setup build test lint demo tasks clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# Leaves alone what is up to date.
build: setup
	$(BIN)/prior-fast build

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint build
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

demo: build
	rm -rf $(DEMO)
	$(RUN) phantom --out $(DEMO)/phantom --studies 3500 --size 256 --seed 1
	$(RUN) prepare mimic --images $(DEMO)/phantom --out $(DEMO)/prepared
	$(RUN) train --preset tiny --data $(DEMO)/prepared --out $(DEMO)/run
	$(RUN) evaluate zero-shot --checkpoint $(DEMO)/run --data $(DEMO)/prepared --out $(DEMO)/zero-shot
	$(RUN) evaluate retrieval --checkpoint $(DEMO)/run --data $(DEMO)/prepared --out $(DEMO)/retrieval
	$(RUN) pictures --checkpoint $(DEMO)/run --data $(DEMO)/prepared --out $(DEMO)/pictures
	@echo "Open $(DEMO)/pictures/index.html to see what the model learned."

tasks: build
	test -d $(DEMO)/run || $(MAKE) demo
	PRIOR_FAST=$(RUN) bash bench/tasks.sh $(DEMO)/run $(DEMO)/tasks

clean:
	rm -rf $(VENV) $(DEMO) prior_fast/_C
