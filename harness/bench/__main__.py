"""`python -m harness.bench JOB.json`: run the bench; exit 0 all done, 1 some failed, 2 bad input, 130 Ctrl-C."""

import argparse
import signal
import sys
from pathlib import Path

from harness.bench.bench_run import run
from harness.bench.job import Job, read
from harness.bench.pinned import end_with_parent
from harness.errors import HarnessError, readable
from harness.files import worded


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and run the job; what the user can put right becomes one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m harness.bench", description=__doc__)
    parser.add_argument("job", type=Path, metavar="JOB.json", help="what to measure, written by `harness bench`")
    parser.add_argument("--end-with-parent", action="store_true", help="stop when the process that started this ends")
    try:
        given = parser.parse_args(arguments)
        if given.end_with_parent:
            # a polite kill is Ctrl-C: what measures ends as well, and finished records are kept
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            end_with_parent(signal.SIGTERM)
        return run(read(given.job, Job))
    except (HarnessError, OSError) as error:
        text = worded(error) if isinstance(error, OSError) else str(error)
        print(f"\nError: {readable(text)}" if sys.stderr.isatty() else f"Error: {readable(text)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted: finished records are kept. The same command resumes from them.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
