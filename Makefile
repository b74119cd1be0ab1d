# make serve: install and serve the embedded model.   make test: install and run every check and test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPAT_VENV := .venv-compat
INSTRUCTOR_VENV := $(COMPAT_VENV)-instructor
NODE_CLIENTS := tests/compat/node
ARGS ?=
REGISTRY ?= localhost
TAG ?= dev
BUILD ?= docker build
DEVICE ?= cpu
TORCH_INDEX_URL ?=

.PHONY: help serve test lint format bench evaluate docs images install install-test install-compat clean

help:
	@grep -E '^# make' $(MAKEFILE_LIST) | sed 's/^# //'
	@echo 'make lint: formatting, lint, types and import rules.   make bench: the CPU benchmark.   make evaluate: score the model.'
	@echo 'make docs: the documentation as a site, in build/site.'
	@echo 'make install-compat: third-party clients, for the tests that run them.'
	@echo 'make images: REGISTRY/dllm-operator:TAG and REGISTRY/dllm-server:TAG. DEVICE=cuda for GPUs; BUILD is the builder.'

$(VENV)/.server: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[server]'
	@touch $@

$(VENV)/.docs: $(VENV)/.server
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

$(VENV)/.test: $(VENV)/.server
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

# Third-party clients pin other versions of the libraries that the server uses, hence an environment of their own.
$(COMPAT_VENV)/.installed: pyproject.toml tests/compat/constraints.txt
	$(PYTHON) -m venv $(COMPAT_VENV)
	$(COMPAT_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(COMPAT_VENV)/bin/python -m pip install --quiet --constraint tests/compat/constraints.txt --editable '.[compat]'
	@touch $@

# instructor allows no openai as new as the other clients'. pip comes from beside it: less to install.
$(INSTRUCTOR_VENV)/.installed: tests/compat/instructor.txt $(COMPAT_VENV)/.installed
	$(PYTHON) -m venv --without-pip $(INSTRUCTOR_VENV)
	$(COMPAT_VENV)/bin/python -m pip --python $(INSTRUCTOR_VENV) install --quiet --no-deps --requirement $<
	@touch $@

$(NODE_CLIENTS)/node_modules/.installed: $(NODE_CLIENTS)/package.json $(NODE_CLIENTS)/package-lock.json
	@if command -v npm > /dev/null; then npm ci --prefix $(NODE_CLIENTS) --ignore-scripts --no-audit --no-fund && touch $@; \
		else echo 'no npm: the clients of Node.js are left out'; fi

install: $(VENV)/.server

install-test: $(VENV)/.test

install-compat: $(COMPAT_VENV)/.installed $(INSTRUCTOR_VENV)/.installed $(NODE_CLIENTS)/node_modules/.installed

serve: $(VENV)/.server
	$(BIN)/dllm serve $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	$(BIN)/python -m tests.gate $(ARGS)

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.cpu $(ARGS)

evaluate: $(VENV)/.test
	$(BIN)/dllm evaluate $(ARGS)

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going --nitpicky --conf-dir docs/site docs build/site
	@echo build/site/index.html

images: IMAGE_ARGS = --build-arg VERSION=$(TAG) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null)
images:
	$(BUILD) -t $(REGISTRY)/dllm-operator:$(TAG) -f docker/operator.Dockerfile $(IMAGE_ARGS) .
	$(BUILD) -t $(REGISTRY)/dllm-server:$(TAG) -f docker/server.Dockerfile $(IMAGE_ARGS) \
		--build-arg DEVICE=$(DEVICE) --build-arg TORCH_INDEX_URL=$(TORCH_INDEX_URL) .

clean:
	rm -rf $(VENV) $(COMPAT_VENV) $(INSTRUCTOR_VENV) $(NODE_CLIENTS)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
