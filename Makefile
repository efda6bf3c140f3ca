# Every target sets up what it needs first; scripts/setup_env.py does that and skips what is done.

SHELL := /bin/bash
PYTHON ?= python3
CHECK := .venv-check/bin/python -m
ENTER := source scripts/env.sh
ROS ?=
export ROS

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-lowest check size clean

help:  ## Show this help
	@echo "Video K-Net for ROS 2. Targets:"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo "With a ROS 2 install sourced it is used; else ROS 2 Jazzy is put into .venv, or with"
	@echo "ROS=kilted Kilted into .venv-kilted."

setup:  ## Make .venv and build the ROS 2 package (no torch)
	@$(PYTHON) scripts/setup_env.py run

demo: setup  ## Run camera and node on the synthetic street, or on VIDEO=path, for SECONDS=n
	@$(ENTER) && python scripts/demo.py \
	  $(if $(VIDEO),--video '$(VIDEO)') $(if $(SECONDS),--seconds '$(SECONDS)')

# Of a further distribution, those of the node: the core does not depend on ROS.
test:  ## Run the tests (installs torch); ARGS="-k tracker" goes to pytest
	@$(PYTHON) scripts/setup_env.py test
	@$(ENTER) && OMP_NUM_THREADS=1 python -m pytest -n 2 \
	  $(if $(filter-out jazzy,$(ROS)),tests/ros tests/test_package.py) $(ARGS)

test-fast:  ## Run the tests that are not marked slow
	@$(MAKE) test ARGS='-m "not slow" $(ARGS)'

# Python 3.10 if there is one that runs. Without torch, whose only build that is tried is that of
# `make test`, without ROS, and so without the tests that need them.
test-lowest:  ## Run the tests without torch and ROS on the oldest allowed dependencies
	@$$(python3.10 --version >/dev/null 2>&1 && echo python3.10 || echo $(PYTHON)) \
	  scripts/setup_env.py lowest
	@OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 $(ARGS)

check:  ## Run ruff, mypy and codespell
	@$(PYTHON) scripts/setup_env.py check
	@$(CHECK) ruff check .
	@$(CHECK) ruff format --check .
	@$(CHECK) mypy
	@$(CHECK) codespell_lib

size:  ## Count lines, public names and what the node imports
	@$(PYTHON) scripts/size.py

clean:  ## Remove everything that was made here
	rm -rf .venv .venv-* build install log out .*_cache .hypothesis *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
