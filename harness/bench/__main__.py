"""`python -m harness.bench JOB.json`: run the bench; exit 0 all done, 1 some failed, 2 bad input, 130 Ctrl-C."""

import argparse
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from harness.bench.bench_run import run
from harness.bench.job import Job, read
from harness.bench.pinned import end_with_parent
from harness.errors import HarnessError, readable
from harness.files import worded


def _stop(number: int, frame: Any) -> NoReturn:
    """End what measures, and keep finished records. Once: a terminal and the parent both say so."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and run the job; what the user can put right becomes one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m harness.bench", description=__doc__)
    parser.add_argument("job", type=Path, metavar="JOB.json", help="what to measure, written by `harness bench`")
    parser.add_argument("--end-with-parent", action="store_true", help="stop when the process that started this ends")
    try:
        given = parser.parse_args(arguments)
        if given.end_with_parent:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, _stop)
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
