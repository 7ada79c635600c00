# Every task of this repository. Each target sets up what it needs; nothing has to be active or installed but Python 3.11
# or newer, pip and make.

# The first tested CPython that works, or else any newer one; tools/venv.py says so if it is untested.
TESTED := $(shell sed -n 's/.*Python :: \(3\.[0-9]*\)".*/\1/p' packages/esockd-core/pyproject.toml)
ANY := $(shell IFS=:; for d in $$PATH; do ls "$$d" 2>/dev/null; done | grep -x 'python3\.[0-9]*' | sort -u)
PYTHON := $(shell for p in $(TESTED:%=python%) python3 python $(ANY); do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
ifeq ($(PYTHON),)
$(error No working Python 3.11 or newer on PATH)
endif
BIN := .venv/bin
PACKAGES := cidr proxyproto ratelimit core cli
# Four test processes, because some tests wait for peers and clocks while others compute; one that has finished its share
# takes over tests of another. ARGS="-n0" runs just one.
PARALLEL := -n 4 --dist worksteal
# pyright and node come from the package index, and pyright does not look for a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PYRIGHT_PYTHON_GLOBAL_NODE := off

.PHONY: help echo test lint format types mypy pyright contracts doc-examples docs option-tables plots wheels release bench bench-all clean ready-run ready-dev

help: ## List the tasks
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

ready-run ready-dev: ready-%:
	@$(PYTHON) -m tools.venv .venv $*

echo: ready-run ## Run an echo listener on port 5000 of the loopback addresses
	@exec $(BIN)/esockd open echo 5000

test: ready-dev ## Run every test with branch coverage; ARGS="-k word" runs some
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m compileall -q packages/*/src # or each program that a test starts does so, where Python keeps no bytecode
	$(BIN)/python -m pytest -p tools.unfinished_data $(PARALLEL) --cov --cov-report= $(ARGS)
	@if [ -z "$(ARGS)" ]; then $(BIN)/python -m tools.check_coverage; fi

lint: ready-dev ## Check lint and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: ready-dev ## Fix lint and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: ready-dev ## Check types with mypy and pyright, and that every public name is typed
	@$(MAKE) --no-print-directory --jobs 2 mypy pyright $(PACKAGES:%=public-types-of-%)

mypy:
	$(BIN)/mypy

pyright:
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright

public-types-of-%:
	@$(BIN)/python tools/check_public_types.py esockd_$*

contracts: ready-dev ## Check the import contracts
	$(BIN)/lint-imports

doc-examples: ready-dev ## Run the examples in every README, page and docstring
	$(BIN)/pytest -q --rootdir . -c tools/doc_examples.ini README.md CONTRIBUTING.md docs packages

docs: ready-dev ## Make the site in build/site; a broken link or anchor is an error
	@rm -rf build/site
	$(BIN)/sphinx-build -q -W --keep-going --jobs auto -c docs . build/site
	@cp build/site/README.html build/site/index.html
	@echo "open build/site/index.html"

option-tables: ready-dev ## Write the tables of options into the pages, from the one in the code
	$(BIN)/python -m tools.option_tables

plots: ready-dev ## Draw the plots of the performance page, from the recorded results
	$(BIN)/python -m tools.plots

wheels: ready-dev ## Build each package, and test its wheel in an empty environment of each tested CPython
	$(BIN)/python -m tools.check_wheels

release: ready-dev ## Check, build, test and tag one package: PACKAGE=core
	$(BIN)/python -m tools.release $(PACKAGE)

bench: ready-dev ## Compare the echo listener with its peers; ARGS="--help" lists the options
	$(BIN)/python benchmarks/echo.py $(ARGS)

bench-all: ready-dev ## Run every benchmark, two hours; ARGS="--only REGEX" runs some
	$(BIN)/python benchmarks/all.py $(ARGS)

clean: ## Remove everything that make made
	rm -rf .venv .venv-* .cache build .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache benchmarks/load/build
