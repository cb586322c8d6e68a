"""`python -m benchmarks [SUBJECT ...]`: measure the harness itself, into results/benchmarks."""

import argparse
import sys

from benchmarks import SUBJECTS, run
from harness.errors import HarnessError


def main() -> int:
    """Exit code: 0 all figures are written, 2 a subject is unknown or cannot be measured, 130 stopped by Ctrl-C."""
    subjects = "\n".join(f"  {name:<17} {subject.about}" for name, subject in SUBJECTS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description="Measure the harness itself, into results/benchmarks.",
        epilog=f"subjects:\n{subjects}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("subject", nargs="*", help="one of those below; all of them where none is named")
    try:
        for path in run(parser.parse_args().subject):
            print(f"Written: {path}")
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
