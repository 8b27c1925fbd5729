# edge-ad on a PC or a 64-bit Raspberry Pi: the runtime and the command line, without PyTorch.
#
# Build, from the root of the repository:
#
#   make wheel
#   docker build -t edge-ad .
#
# Run, with a USB camera and the live page:
#
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     --group-add "$(getent group video | cut -d: -f3)" --device /dev/video0 \
#     -v "$PWD/models:/models:ro" -e EDGE_AD_MODEL=/models/cable-fusion.onnx \
#     edge-ad stream --camera /dev/video0
#
# deploy/compose.yaml does the same with a configuration file and the live page.

ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS packages
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
    && python3 -m venv /opt/edge-ad
COPY dist/edge_ad-*.whl /tmp/
# opencv-python-headless needs no system library; both ONNX Runtime wheels must never be installed together.
# Compiling all modules would take 50 MB; importing compiles those that a device uses, which cannot write
# them itself, since its root is read-only.
RUN wheel=$(echo /tmp/edge_ad-*.whl) \
    && /opt/edge-ad/bin/pip install --no-cache-dir --no-compile "${wheel}[device,mqtt,serve,webhook,sign]" \
    && /opt/edge-ad/bin/python -c "import cv2, cryptography.hazmat.primitives.serialization, httpx, \
onnxruntime, paho.mqtt.client, prometheus_client, starlette.routing, starlette.staticfiles, uvicorn" \
    && /opt/edge-ad/bin/python -m compileall -q /opt/edge-ad/lib/python3*/site-packages/edge_ad* \
    && /opt/edge-ad/bin/python -c "import cv2, numpy; \
cv2.imwrite('/opt/edge-ad/black.png', numpy.zeros((64, 64, 3), numpy.uint8)) or exit('no picture')" \
    && /opt/edge-ad/bin/pip uninstall --yes setuptools pip \
    && find /opt/edge-ad -type d -name tests -prune -exec rm -r {} +

FROM ${BASE_IMAGE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && useradd --system --no-create-home --groups video edge-ad
COPY --from=packages /opt/edge-ad /opt/edge-ad
ENV PATH=/opt/edge-ad/bin:$PATH
USER edge-ad

# ONNX Runtime 1.31 and newer writes a device identity into the user's cache without this.
ENV ORT_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2

# Loads the model and scores a frame; it does not show that the camera delivers.
HEALTHCHECK --start-period=60s --interval=300s --timeout=60s --retries=2 \
    CMD ["/bin/sh", "-c", "edge-ad predict \"$EDGE_AD_MODEL\" /opt/edge-ad/black.png --device cpu --json"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["edge-ad"]
CMD ["stream", "--camera", "/dev/video0"]
