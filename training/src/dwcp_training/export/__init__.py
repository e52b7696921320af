"""ONNX graphs: one file per layout of CONTRACT.md (G2), and their cross-checks against other converters."""
