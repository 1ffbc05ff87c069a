# The names of everything a person runs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH
# Nothing is fetched from a model hub unless the user asks for it.
CORES ?= all
ARGS ?=
STAMP := .venv/setup.stamp

.PHONY: help setup run test test-fast lint schema lock report figures datasets bench clean

help:            ## show this list
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  +##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## / — /'

setup: $(STAMP)  ## install everything into .venv

$(STAMP): envs/setup.sh envs/registry.sh envs/cpu/requirements.txt envs/gpu/requirements.txt pyproject.toml
	envs/setup.sh
	touch $@

run: setup       ## run the workflow with the default config and print the verdict
	snakemake --cores $(CORES) $(ARGS)
	python workflow/scripts/verdict.py

test: setup lint ## the whole test suite
	pytest -m "not slow"
	pytest -m slow

test-fast: setup ## the tests that need no engine
	pytest -m "not slow"

lint: setup      ## style, formatting, types, Snakemake's own checks
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow/rules
	mypy
	snakemake --lint

schema: setup    ## regenerate schema and manual from the config models
	python workflow/scripts/schema.py

lock: setup      ## resolve the environments anew
	envs/lock.sh

clean:           ## remove results and logs, keep the environment
	rm -rf results/* logs .snakemake
