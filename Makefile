# RabbitMQ by Example. `make` prints what there is.

PYTHON ?= python3
# Tests mostly wait, so they run in more processes than there are cores.
JOBS ?= 12

VENV := .venv
RUN := $(VENV)/bin/python
# Stamps of what is installed: for the scripts, the broker and the demo; and what
# tests, the companion app's tests, pages and linters need beside it.
READY := $(VENV)/ready
TESTS_READY := $(VENV)/tests-ready
APPS_READY := $(VENV)/apps-ready
DOCS_READY := $(VENV)/docs-ready
LINT_READY := $(VENV)/lint-ready
# What readers and contributors run lives beside the tests.
TOOL := PYTHONPATH=tests $(RUN)
PYTEST = $(RUN) -m pytest -n $(JOBS) --dist loadgroup
# Else each of those processes compiles all the tests for itself.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo broker cluster cluster-demo chaos doctor reset test test-production test-apps sabotage check format lint types docs minutes figures bench bench-quick bench-peers clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements.txt .ci/setup.sh .ci/install.sh
	@sh .ci/setup.sh "$(PYTHON)" "$(VENV)"

$(TESTS_READY): $(READY) tests/requirements.txt
	@sh .ci/install.sh "$(VENV)" tests/requirements.txt tests-ready

$(APPS_READY): $(TESTS_READY) tests/apps/requirements.txt $(wildcard examples/*/requirements.txt)
	@sh .ci/install.sh "$(VENV)" tests/apps/requirements.txt apps-ready

$(DOCS_READY): $(READY) docs/requirements.txt
	@sh .ci/install.sh "$(VENV)" docs/requirements.txt docs-ready

$(LINT_READY): $(READY) .ci/requirements.txt
	@sh .ci/install.sh "$(VENV)" .ci/requirements.txt lint-ready

demo: $(READY) ## watch a work queue, half a minute (CHAPTER=6-rpc: another)
	@$(TOOL) -m shells.demo $(CHAPTER)

broker: $(READY) ## keep a throwaway broker on port 5672 (PORT=5673: another; TLS=1: TLS, too)
	@$(TOOL) -m broker

cluster: $(READY) ## keep three nodes on ports 5672 to 5674, to be killed, frozen, cut off
	@$(TOOL) -m broker.cluster

cluster-demo: $(READY) ## watch a cluster lose a node, half a minute
	@$(TOOL) -m chaos.demo

chaos: $(READY) ## break it at random under publishers and workers (SEED= TASKS= FAULTS= NODES=1)
	@$(TOOL) -m chaos

# Where it is typed; a PORT of the environment may be another program's.
doctor reset: ON_PORT = $(if $(findstring command,$(origin PORT)),--port=$(PORT))

doctor: $(READY) ## say what is there and what to type next (PORT=5673: of that broker)
	@$(TOOL) -m shells.doctor $(ON_PORT) || true

reset: $(READY) ## delete the queues and exchanges that the scripts declare (PORT=5673)
	@$(TOOL) -m shells.doctor reset $(ON_PORT)

test: $(TESTS_READY) ## run every script and transcript of the tutorial against a throwaway broker
	@$(PYTEST) --part tutorial $(ARGS)

test-production: $(TESTS_READY) ## the same for workers in production and the cluster
	@$(PYTEST) --part production $(ARGS)

# These compute rather than wait.
test-apps: JOBS = 4
test-apps: $(APPS_READY) ## the same for the companion app http-queue (PostgreSQL, Chromium)
	@$(PYTEST) --part apps $(ARGS)

sabotage: $(APPS_READY) ## break the scripts and see the tests fail (WHAT="no confirms", or a chapter)
	@$(TOOL) -m sabotage $(if $(WHAT),"$(WHAT)")

check: lint types docs test test-production test-apps ## everything a change must pass

format: $(LINT_READY) ## format and fix what can be fixed by itself
	@$(RUN) -m ruff check --fix --quiet . ; $(RUN) -m ruff format .

lint: $(LINT_READY) ## format and lint, checked
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .

types: $(APPS_READY) $(DOCS_READY) $(LINT_READY) ## types of scripts and tooling
	@$(VENV)/bin/basedpyright

docs: $(DOCS_READY) ## build the pages into docs/_build/html
	@$(RUN) -m sphinx -n -W --keep-going -q -b html docs docs/_build/html
	@echo "Pages: docs/_build/html/index.html"

minutes: $(READY) ## compute how long each page takes, for README and the index
	@$(TOOL) -m shells.minutes

figures: $(APPS_READY) $(DOCS_READY) ## record what the scripts do and draw the figures anew
	@$(TOOL) docs/figures/record.py

bench: $(DOCS_READY) ## the consumer benchmark in full, half an hour (resumes what was interrupted)
	@$(TOOL) docs/figures/record_consumer_benchmark.py full

bench-quick: $(READY) ## the same in two minutes, nothing recorded
	@$(TOOL) docs/figures/record_consumer_benchmark.py quick

bench-peers: $(READY) ## ours against other clients and task queues, which it installs apart
	@$(TOOL) docs/figures/record_consumer_benchmark.py peers

clean: ## remove what was built and installed here
	@rm -rf $(VENV) .venv-peers docs/_build .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
