# The names of everything a person runs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(CURDIR)/.venv/bin:$(PATH)
CORES ?= all
ARGS ?=
STAMP := .venv/setup.stamp

.PHONY: help setup run test test-all test-touched coverage test-fast test-slurm faults contract lint schema lock bench datasets figures
.PHONY: report clean forget

help:            ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | column -t -s "$$(printf '\t')"

setup: $(STAMP)  ## install everything into .venv

$(STAMP): envs/setup.sh envs/registry.sh envs/cpu/requirements.txt envs/gpu/requirements.txt pyproject.toml
	envs/setup.sh
	touch $@

run: setup       ## run the workflow with the default config and print the verdict
	snakemake --cores $(CORES) $(ARGS)
	pdswitch verdict

test: setup lint ## fast tests, then real vLLM and Snakemake; about 15 minutes on two cores
	pytest -m "not slow and not rare and not slurm"
	pytest -m "slow and not rare"

test-all: test   ## the rare tests too: Slurm, faults, several models, statistics with many draws
	pytest -m rare
	tests/slurm/run.sh

test-touched: setup ## the rare tests that a change touches: make test-touched SINCE=COMMIT
	tests/touched.sh $(SINCE)

test-fast: setup ## the tests that start neither vLLM nor Snakemake
	pytest -m "not slow and not rare and not slurm"

coverage: setup  ## the lines of the library that the fast tests run, in percent
	pytest -m "not slow and not rare and not slurm" --cov=pdswitch --cov-report=term:skip-covered

test-slurm: setup ## the tests on a Slurm of one node, installed and started for them; skipped where that cannot be
	tests/slurm/run.sh $(ARGS)

faults: setup    ## fifty rounds of SIGKILL at random moments over a whole small workflow, twenty of mistakes
	PDSWITCH_FAULT_ROUNDS=50 pytest -m rare tests/workflow/test_faults.py
	PDSWITCH_MISTAKE_ROUNDS=20 pytest -m rare tests/workflow/test_store.py

contract: setup  ## the scheduler on every supported vLLM, each in a folder thrown away; writes docs
	. envs/registry.sh && python tests/support/contract.py 0.26.0 0.30.0 0.32.0

lint: setup      ## style, formatting, types, Snakemake's own checks, generated files
	ruff check --quiet .
	ruff format --quiet --check .
	snakefmt --check Snakefile workflow/rules
	mypy
	python tools/schema.py --check
	snakemake --lint

schema: setup    ## regenerate the config's schema and manual from its models
	python tools/schema.py

lock: setup      ## resolve the environments anew
	envs/lock.sh

bench: setup     ## speed of the command's start, the mathematics, the dataset extraction, the engine's service, the scheduler, a large sweep
	python benchmarks/bench_start.py
	PYTHONPATH=workflow python benchmarks/bench_theory.py
	PYTHONPATH=workflow python benchmarks/bench_datasets.py
	PYTHONPATH=workflow python benchmarks/bench_engine.py
	python benchmarks/bench_scheduler.py
	python benchmarks/bench_scale.py

datasets: setup  ## extract and tokenize the configured datasets; print and draw them
	snakemake datasets --cores $(CORES) $(ARGS)

figures: setup   ## everything up to the figures
	snakemake figures --cores $(CORES) $(ARGS)

report: setup    ## everything up to the report
	snakemake report --cores $(CORES) $(ARGS)

clean:           ## remove results and logs, keep the environment and what was measured
	find results -mindepth 1 -not -name .gitkeep -delete
	rm -rf logs .snakemake
	@if [ -d measured ]; then \
	  echo "measured/ stays ($$(du -sh measured | cut -f1)): the next run puts results back; make forget removes it"; fi

forget:          ## remove what was measured too, so that everything is measured again
	rm -rf measured
