# One obvious command for each habit; every target starts with `setup`, whose steps are stamps and run once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
# Every test of a command starts one, and without bytecode each start would compile the pipeline anew.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup test check bench demo clean lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMPS)/kafka ## virtual environment from the lock file, Apache Kafka's jars
	@:

test: setup ## the whole test suite (ARGS='-k words' for a part of it)
	@$(BIN)/python -m pytest $(or $(strip $(ARGS)),-n 2)

check: setup ## format, lint, strict types
	@$(BIN)/ruff format --check --quiet . || { echo "mend with: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary pipeline
	@echo "format, lint and types are in order"

bench: setup ## measure rates, delays and memory; writes build/bench.json
	@$(BIN)/python tests/bench/run.py $(ARGS)

demo: setup ## broker, pipeline and the peak-season scenario, live in the terminal (ARGS='--headless')
	@$(BIN)/gigawatch demo $(ARGS)

clean: ## remove what was made here (virtual environment, caches, build output); Kafka's jars stay cached
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@rm -rf tests/dashboards/grafana_schema/node_modules
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock: setup ## resolve pyproject.toml into the lock files again
	@$(PYTHON) -m venv build/lock && build/lock/bin/python -m pip --disable-pip-version-check -q install uv
	@build/lock/bin/uv pip compile $(LOCK) pyproject.toml -o requirements.lock
	@build/lock/bin/uv pip compile $(LOCK) --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
# One lock for every platform and Python, and nothing in it about where the packages came from.
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

# with_bar COMMAND,PACKAGES: pip's command; on a terminal with one bar in place of its hundreds of lines.
define with_bar
if [ -t 1 ]; then { $(1) || echo FAILED; } | { \
  total=$(2) n=0 bar=; \
  while read -r word name rest; do \
    case $$word in \
      Collecting|Requirement|Ignoring) n=$$((n + 1)); [ $$((n % 4)) != 0 ] || bar="$$bar#" ;; \
      Installing) name="installing all of them" ;; \
      FAILED) exit 1 ;; \
      *) continue ;; \
    esac; \
    printf '\r  [%-24s] %d of %d  %.40s\033[K' "$$bar" "$$n" "$$total" "$${name%:}"; \
  done; printf '\n'; }; \
else $(1) --quiet; fi
endef

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Gigawatch needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo absent)."; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "setup 1/4  virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed; on Debian: apt-get install python3-venv"; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/lock: $(STAMPS)/venv requirements-dev.lock
	@echo "setup 2/4  Python packages, exactly as locked (about 300 MB, a minute or two)"
	@$(call with_bar,$(PIP) install --require-hashes --no-deps -r $(lastword $^),$$(grep -c == $(lastword $^)))
	@touch $@

$(STAMPS)/package: $(STAMPS)/lock pyproject.toml
	@echo "setup 3/4  the gigawatch command"
	@$(PIP) --quiet install --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMPS)/kafka: $(STAMPS)/package pipeline/broker/kafka.jars
	@echo "setup 4/4  Apache Kafka"
	@$(BIN)/gigawatch kafka --prefetch
	@touch $@
