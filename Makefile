# Two commands do all the set-up on a fresh machine with Python and make: `make demo`, `make test`.

PYTHON ?= python3
ENV ?= .venv
BIN := $(ENV)/bin

.PHONY: help demo test test-slow check lint types layers docs bench prove clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# torch first and pinned: an install that asks for a plain `torch` while none is there takes the newest build, with several
# gigabytes of CUDA beside it. constraints.txt says which.
$(BIN)/python:
	$(PYTHON) -m venv $(ENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(ENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,synthetic,decode]'
	touch $@

$(ENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ $(ENV)/.demo

demo: $(ENV)/.demo  ## make a corpus, train a recogniser for minutes, transcribe AUDIO=path, write demo/report.html
	$(BIN)/sonorant demo --out demo $(if $(AUDIO),--audio "$(AUDIO)") $(DEMO_OPTIONS)

test: $(ENV)/.dev  ## the whole test suite, two processes of one thread each
	$(BIN)/python -m pytest -n 2 --dist worksteal $(TEST_OPTIONS)

test-slow: $(ENV)/.dev  ## the tests that `make test` leaves out for their length
	$(BIN)/python -m pytest -m "slow and not gpu" $(TEST_OPTIONS)

check: lint types layers docs  ## everything but the tests

lint: $(ENV)/.dev  ## format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(ENV)/.dev  ## mypy over the package
	$(BIN)/mypy

layers: $(ENV)/.dev  ## every import points down
	$(BIN)/lint-imports

docs: $(ENV)/.dev  ## the documentation site; a warning is an error
	$(BIN)/python docs/make_pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(ENV)/.dev  ## run every bench and write bench/README.md
	$(BIN)/python bench/run.py

prove: $(ENV)/.dev  ## prove every recipe's claims (hours)
	$(BIN)/sonorant prove --all

clean:  ## remove the environment and what was built
	rm -rf $(ENV) site build dist demo
