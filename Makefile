PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast test-device fuzz check

demo: .venv/installed
	$(BIN)/edge-ad demo

test: .venv/installed
	$(BIN)/pytest

# Without soaks, browsers, RTSP servers and whole exports.
test-fast: .venv/installed
	$(BIN)/pytest -m "not slow"

# The tests of the device package where only a device's packages are installed: no PyTorch, no onnx.
test-device: .venv-device/installed
	.venv-device/bin/pytest -m "not slow" tests/runtime

# 10,000 mutated inputs of each kind, in processes with limits on time and memory.
fuzz: .venv/installed
	$(BIN)/python -m tests.fuzz.harness --count 10000

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

.venv-device/installed: pyproject.toml
	$(PYTHON) -m venv .venv-device
	.venv-device/bin/pip install --quiet --upgrade pip
	.venv-device/bin/pip install --quiet --editable '.[cpu,test-device]'
	touch $@
