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
# deploy/compose.yaml holds the same for several cameras, with the live page and a configuration file.

FROM python:3.12-slim-bookworm

COPY dist/edge_ad-*.whl /tmp/
# opencv-python-headless needs no system library; both ONNX Runtime wheels must never be installed together.
RUN wheel=$(echo /tmp/edge_ad-*.whl) \
    && pip install --no-cache-dir "${wheel}[device,mqtt,serve,webhook,sign]" \
    && rm /tmp/edge_ad-*.whl \
    && python -c "import cv2, numpy; \
cv2.imwrite('/opt/black.png', numpy.zeros((64, 64, 3), numpy.uint8)) or exit('no picture')" \
    && useradd --system --no-create-home --groups video edge-ad
USER edge-ad

# ONNX Runtime 1.31 and newer writes a device identity into the user's cache without this.
ENV ORT_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1

# Loads the model and scores a frame; it does not show that the camera delivers.
HEALTHCHECK --start-period=60s --interval=300s --timeout=60s --retries=2 \
    CMD ["/bin/sh", "-c", "edge-ad predict \"$EDGE_AD_MODEL\" /opt/black.png --device cpu --json"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["edge-ad"]
CMD ["stream", "--camera", "/dev/video0"]
