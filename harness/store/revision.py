"""Which version of the harness this is, for the records."""

import os
import subprocess
from functools import cache
from pathlib import Path


@cache
def revision() -> str:
    """HARNESS_REVISION where it is set (in an image), else git's description of the checkout, else "unknown"."""
    if given := os.environ.get("HARNESS_REVISION"):
        return given
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()
