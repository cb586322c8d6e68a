"""Batch benchmark harness for network compression: matrix.toml -> models -> latencies and accuracies -> tables."""

# as pyproject.toml, CITATION.cff and CHANGELOG.md say it; a test compares them
__version__ = "0.1.0"
