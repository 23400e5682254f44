# `make demo` and `make test` need Python 3.11 with venv, make and git; setup brings the rest into .venv.
# The first interpreter that fits is used; another one: make setup PYTHON=/path/to/python3.11
ifndef PYTHON
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON := $(shell for p in python3.11 python3 python3.12 python3.13; do $$p -c "$(FITS)" 2>/dev/null && echo $$p && break; done)
endif
BIN := .venv/bin

.PHONY: setup demo test docs clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt tools/setup.py
	@test -n "$(PYTHON)" || { echo "setup: Python 3.11 is missing; as root: apt-get update && apt-get install -y python3.11 python3.11-venv" >&2; exit 1; }
	@$(PYTHON) tools/setup.py

demo: setup
	$(BIN)/handaug demo

test: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 --dist worksteal

# The command reference and the file format, written down from the code; a test keeps them equal.
docs: setup
	$(BIN)/python tools/write_docs.py

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
