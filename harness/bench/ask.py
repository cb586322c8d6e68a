"""`python -m harness.bench.ask ENGINE THREADS...`: what an engine, named as in matrix.toml, says of itself, as JSON."""

import json
import sys

from harness.bench.engines import load_engine, runtime_of


def main(name: str, threads: list[int]) -> None:
    """Print the engine with its version, and its options for each of these numbers of threads."""
    engine = load_engine(name)
    print(json.dumps({"runtime": runtime_of(name), "options": [engine.options(count) for count in threads]}))


if __name__ == "__main__":
    main(sys.argv[1], [int(count) for count in sys.argv[2:]])
