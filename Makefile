# Every task of this repository. Each target sets up what it needs by itself; nothing has to be active or installed
# beside Python 3.11 or newer, pip and make.

PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
ifeq ($(PYTHON),)
$(error No working Python 3.11, 3.12 or 3.13 on PATH)
endif
BIN := .venv/bin
PACKAGES := cidr proxyproto ratelimit core cli
# Four test processes: the tests wait for peers and clocks more than they work. ARGS="-n0" runs them in one.
PARALLEL := -n 4
# pyright and node come whole from the package index; pyright is not to look for a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PYRIGHT_PYTHON_GLOBAL_NODE := off

.PHONY: help echo test test-pythons lint format types contracts doc-examples wheels bench clean ready-run ready-dev

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

ready-run ready-dev: ready-%:
	@$(PYTHON) tools/venv.py .venv $*

echo: ready-run ## Run an echo listener on port 5000 of the loopback addresses
	@exec $(BIN)/esockd open echo 5000

test: ready-dev ## Run every test with branch coverage; add ARGS="-k word" for some
	@rm -f .coverage .coverage.*
	$(BIN)/pytest $(PARALLEL) --cov --cov-report= $(ARGS)
	@if [ -z "$(ARGS)" ]; then $(BIN)/python tools/check_coverage.py; fi

test-pythons: ## Run the tests on each other working CPython from 3.11 to 3.13 on this machine
	@pythons=$$($(PYTHON) tools/pythons.py --others) || exit 1; \
	echo "== beside $$($(PYTHON) --version), which \`make test\` takes:" $${pythons:-no other works here}; for p in $$pythons; do \
		v=.venv-$$($$p -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		$$p tools/venv.py $$v test && echo "== $$p" && $$v/bin/pytest -q $(PARALLEL) --ignore tests/tools || exit 1; done

lint: ready-dev ## Check lint and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: ready-dev ## Mend lint and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: ready-dev ## mypy strict everywhere; pyright finds every public name fully typed
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright
	@for p in $(PACKAGES); do $(BIN)/python tools/check_public_types.py esockd_$$p || exit 1; done

contracts: ready-dev ## Check the import contracts
	$(BIN)/lint-imports

doc-examples: ready-dev ## Run the examples of every README, page and docstring
	$(BIN)/pytest -q --rootdir . -c tools/doc_examples.ini README.md CONTRIBUTING.md docs packages

wheels: ready-dev ## Build each package and test its wheel in an empty environment
	$(BIN)/python tools/check_wheels.py

bench: ready-dev ## Compare the echo listener with its peers; add ARGS="--help" for the options
	$(BIN)/python benchmarks/echo.py $(ARGS)

clean: ## Remove everything that was made here
	rm -rf .venv .venv-* .cache .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache benchmarks/load/build
