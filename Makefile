# `make` lists what there is; the work is done in scripts/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON_IN_VENV := .venv/bin/python
export ENGINE PYTHON

# --flag VALUE where the variable has a value; without one the environment, the file and the default decide.
flag = $(if $($(1)),$(2) "$($(1))")

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## make or update .venv; ENGINE=cpu|gpu overrides what the machine has
	@scripts/setup.sh

.PHONY: setup-dev
setup-dev: ## the same, with what tests and checks need
	@scripts/setup.sh --dev

.PHONY: serve
serve: setup ## serve the demo model; MODEL=hub-id-or-folder HOST= PORT= ENGINE=cpu|gpu ARGS="..."
	@exec $(PYTHON_IN_VENV) -m server $(call flag,MODEL,--model) $(call flag,HOST,--host) $(call flag,PORT,--port) $(ARGS)

.PHONY: test
test: setup-dev ## run every test that needs no GPU and no minutes; ARGS="..." goes to pytest
	@$(PYTHON_IN_VENV) -m pytest -m 'not slow' -n 2 --no-loadscope-reorder $(ARGS)

.PHONY: test-slow
test-slow: setup-dev ## run the tests that take minutes, such as AIN's shape on the CPU
	@$(PYTHON_IN_VENV) -m pytest -m slow $(ARGS)

.PHONY: steady
steady: ## run `make test` three times, once on a busy machine, and quick tests ten times in random order
	@scripts/steady.sh

.PHONY: check
check: setup-dev ## lint and types: Python, shell, container files
	@scripts/check.sh

.PHONY: lock
lock: ## solve requirements/*.in into the pinned lists; ARGS=--upgrade takes the newest
	@scripts/lock.sh $(ARGS)

.PHONY: parity
parity: setup-dev ## compare our answers with transformers' and qwen-vl-utils', text by text
	@$(PYTHON_IN_VENV) -m tests.parity $(ARGS)

.PHONY: mutations
mutations: setup-dev ## break the picture's way in, and show that a test notices
	@$(PYTHON_IN_VENV) -m tests.mutations $(ARGS)

.PHONY: bench
bench: setup-dev ## time our server against that of vLLM; ARGS="--only NAME --rounds N"
	@$(PYTHON_IN_VENV) -m clients.bench $(ARGS)

.PHONY: drills
drills: setup-dev ## kill, hang, flood and redeploy real servers; ARGS="--only NAME,... --short"
	@$(PYTHON_IN_VENV) -m tests.drills $(ARGS)

.PHONY: slow-hosts
slow-hosts: setup-dev ## ask for text while a hundred picture hosts send a byte a second
	@$(PYTHON_IN_VENV) -m tests.hostile.slow_hosts $(ARGS)

.PHONY: stalls
stalls: setup-dev ## ask for /health/live while the worst bodies come, and see how long anybody waits
	@$(PYTHON_IN_VENV) -m tests.hostile.stalls $(ARGS)

.PHONY: crowd
crowd: setup-dev ## have seven thousand strangers at the door, and see what who has a key notices
	@$(PYTHON_IN_VENV) -m tests.hostile.crowd $(ARGS)

.PHONY: walks
walks: setup-dev ## send whole, broken and damaged requests on random walks; ARGS="--minutes 10 --seed N"
	@$(PYTHON_IN_VENV) -m tests.hostile.walks $(ARGS)

.PHONY: fuzz
fuzz: setup-dev ## feed broken files to the decoders; ARGS="--minutes 10"
	@$(PYTHON_IN_VENV) -m tests.fuzz $(ARGS)

.PHONY: corpus
corpus: setup-dev ## post every file of DIR to a server, and compare with Pillow, pypdfium2 and PyAV; ARGS="--url ..."
	@$(PYTHON_IN_VENV) -m tests.corpus $(if $(DIR),"$(DIR)",$(error DIR=... names the folder)) $(ARGS)

.PHONY: startup-bench
startup-bench: setup ## time our start against that of vLLM's server
	@$(PYTHON_IN_VENV) -m clients.bench.startup $(ARGS)

.PHONY: demo-train
demo-train: setup ## train the demo model anew
	@$(PYTHON_IN_VENV) -m server.demo.train $(ARGS)

.PHONY: demo-eval
demo-eval: setup ## measure what the demo model knows
	@$(PYTHON_IN_VENV) -m server.demo.evaluate $(ARGS)

.PHONY: clean
clean: ## remove .venv, caches and what builds left
	@rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
