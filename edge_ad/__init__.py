"""Industrial visual anomaly detection: SPADE, PaDiM and PatchCore, from good parts to one ONNX file."""

__version__ = "0.1.0"
