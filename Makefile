PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check

demo: .venv/installed
	$(BIN)/edge-ad demo

test: .venv/installed
	$(BIN)/pytest

check: .venv/installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Set up once; again only when the dependencies change.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[cpu,train,demo,dev]'
	touch $@
