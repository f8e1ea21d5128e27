# Everything a fresh clone needs; sets itself up in .venv, again only when the lock or pyproject.toml change.

SECONDS ?=
DATA ?=
ARGS ?=
PYTHON ?=
export PYTHON

BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"

# A copied or moved .venv belongs to another clone: set up anew (see scripts/venv.sh).
ifneq "$(shell cat .venv/origin 2>/dev/null)" "$(CURDIR)"
$(shell rm -f .venv/runtime .venv/dev)
endif

# `exec` below: with a shell in between, make ends a clean Ctrl-C with an error message of its own.

.DEFAULT_GOAL := help
# Kills per chaos test.
KILLS ?= 100
BROKERS ?= 1
# That tests run in, each with servers of its own: half of a test's time is waiting.
PROCESSES ?= 2
VERSION ?=

.PHONY: help setup demo kafka test lint format bench chaos states verify-data lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

setup: .venv/dev ## make .venv with everything that development needs

demo: .venv/runtime ## watch a simulated fleet stream through (SECONDS=20 stops by itself, ARGS="--rate 500")
	@exec $(BIN)/headrace demo $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

kafka: .venv/runtime ## a real Kafka until Ctrl-C (BROKERS=3 VERSION=3.7.2 ARGS="--port 9092 --secure")
	@exec $(BIN)/python scripts/local_kafka --brokers $(BROKERS) $(if $(VERSION),--version $(VERSION)) $(ARGS)

test: lint ## lint, then all tests (ARGS="-k window" for some)
	@exec $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist worksteal $(ARGS)

lint: .venv/dev ## style, types, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: .venv/dev ## let ruff fix what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: .venv/dev ## benchmarks against their baselines, short form (ARGS="--full", ARGS="NAME --json")
	@exec $(BIN)/headrace bench $(ARGS)

chaos: .venv/dev ## the long form of the kill tests
	@exec $(BIN)/python -m pytest -m chaos --chaos-kills $(KILLS) --chaos-seconds 60 $(ARGS)

states: .venv/dev ## the long form of the state machines (EXAMPLES=10000); a failure says how to reproduce it
	@exec $(BIN)/python -m pytest -m states --examples $(or $(EXAMPLES),10000) --timeout 7200 $(ARGS)

verify-data: .venv/dev ## check against real data sets: make verify-data DATA=FOLDER
	@test -n "$(DATA)" || { echo "usage: make verify-data DATA=FOLDER" >&2; exit 2; }
	@exec $(BIN)/python -m pytest -m data --data="$(DATA)" $(ARGS)

lock: .venv/dev ## pin the newest versions that pyproject.toml allows
	$(COMPILE) --upgrade --group build -o requirements-build.txt
	@# botocore, of the extra kinesis, takes no newer dateutil: with and without it the same versions.
	echo "python-dateutil<3" | $(COMPILE) --upgrade --group build -c requirements-build.txt -c - pyproject.toml -o requirements.txt
	$(COMPILE) --upgrade --group dev -c requirements.txt pyproject.toml -o requirements-dev.txt

clean: ## back to a fresh clone (data in .headrace stays)
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	rm -rf scripts/local_kafka/target benchmarks/peers/.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/runtime: requirements-build.txt requirements.txt pyproject.toml scripts/venv.sh
	@sh scripts/venv.sh requirements.txt
	@touch $@

.venv/dev: .venv/runtime requirements-dev.txt
	@sh scripts/venv.sh requirements-dev.txt
	@touch $@
