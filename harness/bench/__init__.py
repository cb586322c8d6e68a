"""Measures ONNX files in one pinned place: latency and accuracy, one record each. Needs neither torch nor matrix.toml.

Reading order: job (what is asked for), blocks (in which order, and what is up to date), bench_run (the whole of it),
process (one fresh pinned process), latency_suite and accuracy_suite (what that process does), engines (what runs the
models), harness.intervals (what the samples say).
"""
