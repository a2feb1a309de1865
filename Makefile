# `make serve` and `make test` are all that a newcomer needs; both install what is missing.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
NODE_MODULES := tests/clients/js/node_modules
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
CLIENTS_PIP := $(CLIENTS)/bin/python -m pip --disable-pip-version-check --no-input
TORCH := 2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
PYTHONS := $(PYTHON) python3.11 python3.12 python3.13 python3 python

.PHONY: help serve test lint docs bench lock clean

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 14

serve: $(VENV)/.engine ## install what is missing and serve the demo model (ARGS="--port 9000")
	@exec $(BIN)/proctor serve $(ARGS)

# The report on budget/ is silent when all is well: pytest's closing line stays the last one.
test: lint $(if $(ARGS),,$(NODE_MODULES)/.made) ## check and test everything (ARGS="-k budget")
	@status=0; \
	$(BIN)/python -m pytest --cov --cov-report=term --durations=10 $(ARGS) || status=$$?; \
	if [ -z "$(ARGS)" ] && ! report=$$($(BIN)/coverage report --fail-under=100 \
	    --include='budget/*' --omit='budget/processors/*' 2>&1); then \
	  printf '%s\n' "$$report" "budget/ outside its processors must be covered in full"; \
	  status=1; \
	fi; \
	exit $$status

lint: $(VENV)/.dev ## ruff, mypy, the import rules, the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint Dockerfile

docs: $(VENV)/.dev ## generate the reference and build the documentation into site/
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.dev ## throughput, paired against vLLM's own server
	$(BIN)/python -m bench.throughput $(ARGS)

lock: $(VENV)/.dev ## renew the pinned versions and their hashes in requirements/
	$(PIP) install --quiet --upgrade pip uv # older pips find conflicts where there are none
	$(BIN)/python requirements/lock.py

clean: ## remove the environment and all caches
	rm -rf $(VENV) $(CLIENTS) $(NODE_MODULES) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis \
	  .coverage build dist site ./*.egg-info

# A pyenv shim can exist for a Python that is not installed, so each candidate is run.
$(VENV)/.made:
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	    echo "making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv $(VENV); touch $@; exit 0; \
	  fi; \
	done; \
	echo "Proctor needs Python 3.11, 3.12 or 3.13 with the venv module, and none was found." >&2; \
	echo "Install one (Debian, Ubuntu: python3 and python3-venv), or name it: make PYTHON=/path/to/python3.11" >&2; \
	exit 1

# torch comes first and on its own: on Linux as the CPU build, which PyPI does not carry, so from
# PyTorch's own index unless pip is set up with a source that has it.
define install_torch
if [ "$$(uname -s)" = Linux ]; then \
  $(1) install --quiet --no-deps torch==$(TORCH)+cpu 2>/dev/null || \
  $(1) install --quiet --no-deps --index-url $(TORCH_CPU_INDEX) torch==$(TORCH)+cpu; \
else \
  $(1) install --quiet --no-deps torch==$(TORCH); \
fi
endef

$(VENV)/.engine: requirements/engine-cpu.txt pyproject.toml $(VENV)/.made
	@echo "installing the CPU engine (once; several minutes on a slow line)"
	@$(call install_torch,$(PIP))
	@$(PIP) install --quiet --no-deps --require-hashes --requirement requirements/engine-cpu.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.engine
	@echo "installing what tests and checks need"
	@$(PIP) install --quiet --no-deps --require-hashes --requirement requirements/dev.txt
	@touch $@

$(CLIENTS)/.made: requirements/clients.txt $(VENV)/.made
	@echo "installing the clients that tests use"
	@$(BIN)/python -m venv $(CLIENTS)
	@$(call install_torch,$(CLIENTS_PIP)) # GuideLLM loads its data with it
	@$(CLIENTS_PIP) install --quiet --no-deps --no-compile --require-hashes \
	  --requirement requirements/clients.txt
	@touch $@

$(NODE_MODULES)/.made: tests/clients/js/package-lock.json $(CLIENTS)/.made
	@PATH="$(CURDIR)/$(CLIENTS)/bin:$$PATH" \
	  npm ci --prefix $(dir $(@D)) --ignore-scripts --no-audit --no-fund --silent
	@touch $@
