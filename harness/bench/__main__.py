"""`python -m harness.bench JOB.json`: run the bench; exit 0 all done, 1 some failed, 2 bad input, 130 Ctrl-C."""

import argparse
import sys
from pathlib import Path

from harness.bench.bench_run import run
from harness.bench.job import Job, read
from harness.errors import HarnessError
from harness.files import worded


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and run the job; what the user can put right becomes one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m harness.bench", description=__doc__)
    parser.add_argument("job", type=Path, metavar="JOB.json", help="what to measure, written by `harness bench`")
    try:
        return run(read(parser.parse_args(arguments).job, Job))
    except (HarnessError, OSError) as error:
        text = worded(error) if isinstance(error, OSError) else str(error)
        print(f"\nError: {text}" if sys.stderr.isatty() else f"Error: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted: finished records are kept. The same command resumes from them.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
