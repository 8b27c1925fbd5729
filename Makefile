PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast test-device clients wheel bundle fuzz check arm image bench

demo: .venv/installed
	$(BIN)/edge-ad demo

# Two at a time, since most tests wait on one thread; the tests of one file stay together and share its
# fixtures. A process takes up to 2 GB.
TEST_PROCESSES ?= 2
test: .venv/installed
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile

# Without soaks, browsers, RTSP servers and whole exports.
test-fast: .venv/installed
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile -m "not slow"

# The tests of the device package where only a device's packages are installed: no PyTorch, no onnx.
test-device: .venv-device/installed
	.venv-device/bin/pytest -n $(TEST_PROCESSES) --dist loadfile -m "not slow" tests/runtime

# What the tests of the clients in other languages need; without it they skip and say so.
clients: clients/node/node_modules/.package-lock.json clients/browser/node_modules/.package-lock.json
	clients/cpp/get-headers.sh

clients/%/node_modules/.package-lock.json: clients/%/package-lock.json
	cd clients/$* && npm ci --no-progress

# The device's commands as aarch64 code, beside this machine's: needs root, qemu-user-static and debootstrap.
arm: wheel .venv/installed
	$(BIN)/python -m benchmarks.arm dist/edge_ad-*.whl

# The container images, built without a daemon and run locked down: needs root, buildah, podman, conmon,
# runc and debootstrap; for arm64 also qemu-user-static with binfmt_misc. Without PyTorch or any package.
image: wheel
	$(BIN)/python -u -m benchmarks.image dist/edge_ad-*.whl

# 10,000 mutated inputs of each kind, in processes with limits on time and memory.
fuzz: .venv/installed
	$(BIN)/python -m tests.fuzz.harness --count 10000

# edge-ad beside anomalib and AnomaVision, in environments of their own below .venv-peers (14 GB):
# benchmarks/RESULTS.md and its chart. Options: make bench BENCH="--classes bottle --pictures 50".
bench: .venv/installed
	$(BIN)/python -m benchmarks.peers $(BENCH)

# dist/edge_ad-*.whl; takes seconds, since nothing is installed for it
wheel: | .venv/pyvenv.cfg
	rm -f dist/edge_ad-*.whl
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

# For a device without internet: the wheel and everything that it needs, in one folder. On the device:
#   pip install --no-index --find-links edge-ad-bundle 'edge-ad[device]'
# pip asks this machine's Python which packages are needed, so that tomli, for Python 3.10, is named.
# BUNDLE_PLATFORM=manylinux_2_28_aarch64 and BUNDLE_PYTHON=3.10 choose another machine than this one.
BUNDLE_EXTRAS ?= device,serve
BUNDLE_PYTHON ?= $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
BUNDLE_PLATFORM ?= manylinux_2_28_$(shell uname -m)
bundle: wheel
	rm -rf dist/edge-ad-bundle
	$(BIN)/pip download --quiet --only-binary=:all: --python-version $(BUNDLE_PYTHON) \
		$(foreach tag,$(BUNDLE_PLATFORM) manylinux_2_27_$(lastword $(subst 28_, ,$(BUNDLE_PLATFORM))) \
			manylinux_2_17_$(lastword $(subst 28_, ,$(BUNDLE_PLATFORM))) \
			manylinux2014_$(lastword $(subst 28_, ,$(BUNDLE_PLATFORM))),--platform $(tag)) \
		--dest dist/edge-ad-bundle "$$(echo dist/edge_ad-*.whl)[$(BUNDLE_EXTRAS)]" 'tomli>=2.0'

check: .venv/installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

# Set up once; again only when the dependencies change.
.venv/installed: pyproject.toml | .venv/pyvenv.cfg
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[cpu,train,demo,dev]'
	touch $@

.venv-device/installed: pyproject.toml
	$(PYTHON) -m venv .venv-device
	.venv-device/bin/pip install --quiet --upgrade pip
	.venv-device/bin/pip install --quiet --editable '.[cpu,test-device]'
	touch $@
