"""Measures ONNX files in one pinned place: latency and accuracy, one record each. Needs no torch and no matrix.

Reading order: job (what is asked), plan (in which order, what is up to date), run (the whole of it), process (one
fresh pinned child), latency_suite and accuracy_suite (what the child does), harness.intervals (what the samples say).
"""
