# `make serve` and `make test` are the two commands of the README.
PYTHON ?= python3.11
VENV := .venv
STAMP := $(VENV)/installed

.PHONY: test
test: $(STAMP)
	$(VENV)/bin/python -m pytest -q

$(STAMP): requirements/all.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q torch==2.13.0+cpu || $(VENV)/bin/pip install -q --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu
	$(VENV)/bin/pip install -q --no-deps -r requirements/all.txt
	touch $(STAMP)
