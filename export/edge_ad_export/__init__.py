"""From a fitted detector to one ONNX file; no module is loaded before it is asked for."""
