"""Batch benchmark harness for network compression: matrix.toml -> models -> latencies and accuracies -> tables."""
