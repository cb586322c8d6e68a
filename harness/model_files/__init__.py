"""Models as files: weights that load without pickle, and ONNX files that an engine can open."""
