PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast test-device clients wheel bundle fuzz check arm image bench

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

# What the tests of the clients in other languages need; without it they skip and say so.
clients: clients/node/node_modules/.package-lock.json clients/browser/node_modules/.package-lock.json
	clients/cpp/get-headers.sh

clients/%/node_modules/.package-lock.json: clients/%/package-lock.json
	cd clients/$* && npm ci --no-progress

# The device's commands as aarch64 code, beside this machine's: needs root, qemu-user-static and debootstrap.
arm: wheel
	$(BIN)/python -m benchmarks.arm dist/edge_ad-*.whl

# The container images, built without a daemon and run locked down: needs root, buildah, podman, conmon,
# runc and debootstrap; for arm64 also qemu-user-static with binfmt_misc.
image: wheel
	$(BIN)/python -m benchmarks.image dist/edge_ad-*.whl

# 10,000 mutated inputs of each kind, in processes with limits on time and memory.
fuzz: .venv/installed
	$(BIN)/python -m tests.fuzz.harness --count 10000

# edge-ad beside anomalib and AnomaVision, in environments of their own below .venv-peers (14 GB):
# benchmarks/RESULTS.md and its chart. Options: make bench BENCH="--classes bottle --pictures 50".
bench: .venv/installed
	$(BIN)/python -m benchmarks.peers $(BENCH)

# dist/edge_ad-*.whl; takes seconds, since nothing is installed for it
wheel: | .venv/pyvenv.cfg
