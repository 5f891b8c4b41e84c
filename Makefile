# vaebench on a bare machine: Python >= 3.11, git and make are enough. `make` alone lists the targets.

# What a user may set reaches the recipes through the environment, as it was written: the shell never reads it as code.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
endif
override export PYTHON := $(value PYTHON)
override export BASE := $(value BASE)
override export QUICK := $(value QUICK)
override export VAEBENCH_PROFILE := $(if $(value VAEBENCH_PROFILE),$(value VAEBENCH_PROFILE),quick)

override VENV := .venv
override BIN := $(VENV)/bin
# The tools run by their own Python, which is also the one asv builds its environment with.
override ASV := python -m asv
override PAGES := reports/html

ifeq ($(filter quick full,$(VAEBENCH_PROFILE)),)
$(error VAEBENCH_PROFILE must be quick or full, got '$(VAEBENCH_PROFILE)')
endif
export PATH := $(CURDIR)/$(BIN):$(PATH)
# pip takes a list parted by spaces: in an address there are none.
override BLANK :=
override BLANK := $(BLANK) $(BLANK)
export PIP_CONSTRAINT := file://$(subst $(BLANK),%20,$(subst %,%25,$(CURDIR)))/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# One thread and an allocator that keeps its memory: what is timed is the code, not the kernel.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := 1073741824

.DEFAULT_GOAL := help
.PHONY: help bench record gate compare compare-trials dashboard machine test units slow lint docs package studies pages paper accuracy faults nulls peers cuda clean

help:
	@echo 'make bench              measure this commit on this machine, then write the dashboard'
	@echo '                        (VAEBENCH_PROFILE=quick, the default, or full)'
	@echo 'make dashboard          write the dashboard from the results in reports/history'
	@echo 'make gate BASE=main     fail if an exact counter (FLOPs, ops, bytes) rose or was lost since BASE'
	@echo 'make compare BASE=main  time HEAD and BASE in turn, two to eight minutes; fail if something got slower'
	@echo 'make compare-trials     find out how often make compare errs, two hours; it goes to reports/history/compare'
	@echo 'make record             measure this commit with the quick profile, to commit the results'
	@echo 'make machine            tell asv about this machine, before using asv by hand'
	@echo 'make test               lint, type check and test'
	@echo 'make slow               the tests that take minutes: every planted fault, every study of the paper end to end'
	@echo 'make docs               build the documentation into site/; a broken link is an error'
	@echo 'make package            build sdist and wheel into dist/, check them, and run the wheel in a fresh environment'
	@echo 'make studies            run the studies behind reports/FINDINGS.md again, a quarter of an hour on two cores'
	@echo 'make pages              write every page in reports/ again, from its tables; measures nothing'
	@echo 'make paper              rehearse the studies of the paper, to tell how long they take; the page goes to reports/paper'
	@echo 'make accuracy           what a step of each estimator costs and what it takes to a small gradient, about ten minutes;'
	@echo '                        the page goes to reports/accuracy'
	@echo 'make faults             certify every planted fault, under SGD and Adam; the table goes to reports/faults'
	@echo 'make nulls              certify correct code on 50 fresh seeds, to count false alarms'
	@echo 'make peers              compare truth and cost with Pyro, NumPyro and Pythae; the page goes to reports/peers'
	@echo '                        (QUICK=1: a few points of the cost; adds 350 MB to the environment)'
	@echo 'make cuda               test and measure on the CUDA device that the torch of your Python sees; installs nothing'
	@echo 'make clean              remove what these targets made, except results'
	@echo
	@echo 'Results go to reports/history/<machine>/. Keep yours: git add reports/history.'
	@echo 'Drop them: git checkout reports/history && git clean -fd reports/history.'

bench: $(VENV)/.bench
	@status=0; python -m benchmarks.harness.bench || status=$$?; \
	case $$status in 0|2) $(MAKE) --no-print-directory dashboard || exit;; esac; exit $$status

record: override export VAEBENCH_PROFILE := quick
record: $(VENV)/.bench
	@python -m benchmarks.harness.bench
	@echo 'To keep the results: git add reports/history && git commit'

gate: $(VENV)/.bench
	@python -m benchmarks.harness.gate $${BASE:+-- "$$BASE"}

compare: $(VENV)/.dev
	@python -m benchmarks.harness.compare $${BASE:+-- "$$BASE"}

# Resumes where it stopped.
compare-trials: $(VENV)/.dev
	@python -m benchmarks.harness.compare.trials
	@python -m benchmarks.harness.compare.page

dashboard: $(VENV)/.bench
	@$(ASV) publish
	@echo 'The dashboard is in $(PAGES). To see it:'
	@echo '  python3 -m http.server --bind localhost --directory $(PAGES) 8000'
	@echo 'and open http://localhost:8000'

machine: $(VENV)/.bench
	@python -m benchmarks.harness.machine

# What lint takes is mostly one core's: it runs beside the tests.
test: $(VENV)/.dev
	@$(MAKE) --no-print-directory --jobs 2 lint units

units: $(VENV)/.dev
	@python -m pytest -n 2 --dist worksteal --benchmark-disable

slow: $(VENV)/.dev
	@python -m pytest -m slow --benchmark-disable

lint: $(VENV)/.dev
	@ruff check --quiet .
	@ruff format --check --quiet .
	@pyright
	@lint-imports --no-logo

# Warnings are errors, and nothing is fetched.
docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	@echo 'The documentation is in site: open site/index.html'

# The wheel sees the torch that is installed, and nothing else of this checkout.
package: $(VENV)/.release
	@rm -rf dist
	@python -m build --no-isolation --outdir dist . >/dev/null
	@twine check --strict dist/*
	@check-wheel-contents dist/*.whl
	@python .ci/wheel.py dist/*.whl

# Resumes where it stopped. Their pages go to .studies/pages; reports/findings keeps the pictures and tables that are shown.
override STUDIES := activations samples batch beta optimizers estimators bbvi
studies: $(VENV)/.dev
	@for study in $(STUDIES); do vaebench run $$study --results .studies || exit; done
	@vaebench frontier --results .studies --out .studies/pages
	@vaebench report --results .studies --out .studies/pages
	@mkdir -p reports/findings
	@for study in $(STUDIES); do \
	cp .studies/pages/$$study/figures/overview.svg reports/findings/$$study.svg && \
	cp .studies/pages/$$study/tables/arms.csv reports/findings/$$study.csv || exit; done
	@cp .studies/pages/samples/figures/extra-encoder-snr.svg reports/findings/samples-snr.svg
	@cp .studies/pages/frontier/figures/frontier.svg .studies/pages/frontier/tables/frontier.csv reports/findings/
	@python -m benchmarks.findings
	@echo 'The pages are in .studies/pages: open .studies/pages/index.html'

# Measures nothing.
pages: $(VENV)/.dev
	@python -m benchmarks.pages

# Rehearses the paper's studies for twenty steps each, and resumes where it stopped.
paper: $(VENV)/.dev
	@python -m benchmarks.paper

# These resume where they stopped: rows at the same settings are kept.
accuracy: $(VENV)/.dev
	@python -m benchmarks.accuracy

faults: $(VENV)/.dev
	@python -m tests.convergence.faults sgd & sgd=$$!; \
	python -m tests.convergence.faults adam && wait $$sgd && python -m tests.convergence.faults table

nulls: $(VENV)/.dev
	@python -m tests.convergence.faults nulls

peers: $(VENV)/.peers
	@python -m benchmarks.peers truth
	@python -m benchmarks.peers cost $${QUICK:+--quick}

# Nothing is installed: torch is there, and the machine may have no network.
cuda:
	@test -n "$$PYTHON" || { echo 'No Python >= 3.11 found: install one, or name it with PYTHON=...'; exit 1; }
	@PYTHONPATH=. "$$PYTHON" -m benchmarks.cuda

clean:
	rm -rf $(VENV) .asv $(PAGES) site dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.python:
	@test -n "$$PYTHON" || { echo 'No Python >= 3.11 found: install one, or name it with PYTHON=...'; exit 1; }
	@"$$PYTHON" -m venv $(VENV)
	@touch $@

$(VENV)/.bench: $(VENV)/.python constraints.txt
	@echo 'Installing asv'
	@python -m pip install --quiet asv asv_runner virtualenv jinja2 markdown-it-py
	@touch $@

$(VENV)/.dev: $(VENV)/.bench pyproject.toml
	@echo 'Installing vaebench and the tools that check it'
	@python -m pip install --quiet flit_core
	@python -m pip install --quiet --no-build-isolation --editable '.[bench,cluster,dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	@echo 'Installing the tools that build the documentation'
	@python -m pip install --quiet --no-build-isolation --editable '.[docs]'
	@touch $@

$(VENV)/.release: $(VENV)/.dev
	@echo 'Installing the tools that build and check a release'
	@python -m pip install --quiet --no-build-isolation --editable '.[release]'
	@touch $@

# Without dependencies: nothing may replace the torch that is tested.
$(VENV)/.peers: $(VENV)/.dev benchmarks/peers/requirements.txt
	@echo 'Installing the libraries to compare with'
	@python -m pip install --quiet --no-deps --requirement benchmarks/peers/requirements.txt
	@touch $@
