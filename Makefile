# `make` prints help. Everything that is made lands in .build (and in artifacts/ for evidence).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

ENV := tools/in_env
STEP := tools/step

##@ Use

.PHONY: help
help: ## Print this help
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n  Variables: SCENARIO=<name> for molecule, ARGS=<more arguments> for unit, contract, bench, failover and chaos\n\n'

.PHONY: setup
setup: ## Make the Python environment in .build/venv (instant when it is current)
	@$(STEP) environment tools/setup

.PHONY: engine
engine: ## Make sure that a Docker engine answers
	@$(STEP) 'Docker engine' tools/docker_engine

.PHONY: demo
demo: setup engine ## Build the lab, move a PostgreSQL under load to Patroni, show the evidence
	@$(STEP) demo $(ENV) lab/demo

.PHONY: lab-up
lab-up: setup engine ## Build and start the lab
	@$(STEP) 'lab up' $(ENV) lab/up

.PHONY: lab-down
lab-down: ## Remove the lab: no container, network or volume is left
	@$(STEP) 'lab down' $(ENV) lab/down

##@ Check

.PHONY: test
test: setup ## Everything that CI runs: lint, sanity, contract, unit, playbooks, molecule
	@$(ENV) python tools/check all

.PHONY: lint
lint: setup ## yamllint, ansible-lint, ruff, mypy, documentation and changelog
	@$(ENV) python tools/check lint

.PHONY: sanity
sanity: setup ## ansible-test sanity, without an ignore file
	@$(ENV) python tools/check sanity

.PHONY: contract
contract: setup ## The rules between the parts
	@$(ENV) python tools/check contract $(ARGS)

.PHONY: unit
unit: setup ## Unit tests
	@$(ENV) python tools/check unit $(ARGS)

.PHONY: playbooks
playbooks: setup ## Playbooks through ansible-runner
	@$(ENV) python tools/check playbooks $(ARGS)

.PHONY: molecule
molecule: setup ## Scenarios on the lab; one of them with SCENARIO=<name>
	@$(ENV) python tools/check molecule $(SCENARIO)

.PHONY: bench
bench: setup engine ## Measure copy, cutover and the rest in the lab; figures to artifacts/bench.json (about an hour)
	@$(STEP) bench $(ENV) tests/bench/run $(ARGS)

.PHONY: failover
failover: setup engine ## Break the lab's target in every way, three times each, and print how long clients were without service (ARGS='--repeats 1 switchover')
	@$(STEP) failover $(ENV) tests/failover/run $(ARGS)

.PHONY: chaos
chaos: setup engine ## Kill everything at every moment of a cutover and a roll back, under load; goes on where it was interrupted (ARGS=--short: one case per actor)
	@$(STEP) chaos $(ENV) tests/chaos/run $(ARGS)

##@ Maintain

.PHONY: docs
docs: setup ## Check and render the modules' and roles' pages to .build/docs
	@$(STEP) docs $(ENV) tools/docs

.PHONY: problems
problems: setup ## Write docs/problems.md from what the tests of bad inputs are told
	@tools/test_programs
	@PG_HA_WRITE_PROBLEMS=1 $(ENV) python -m pytest -q tests/playbooks/test_bad_inputs.py

.PHONY: format
format: setup ## Format Python files
	@$(ENV) ruff check --fix-only --quiet .
	@$(ENV) ruff format .

.PHONY: lock
lock: setup ## Resolve requirements/*.in again, for each Python that is here
	@$(STEP) lock tools/lock
