"""Which version of the harness this is, for the records."""

import os
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The folder whose files are the harness.
PACKAGE, PROJECT = "harness", "pyproject.toml"


@cache
def revision() -> str:
    """HARNESS_REVISION where it is set (in an image), else that of this checkout, or the version that is installed."""
    return os.environ.get("HARNESS_REVISION") or (revision_of(ROOT) if (ROOT / PROJECT).is_file() else _installed())


def _installed() -> str:
    """The version of the package, which need not lie in a checkout, and may lie in somebody else's."""
    try:
        return f"version {version('compression-harness')}"
    except PackageNotFoundError:
        return "unknown"


def revision_of(folder: Path) -> str:
    """The commit that a checkout is at, by tag or hash; "unknown" where git cannot tell.

    It ends in "-dirty" where a file of harness/ has been changed, or one has been added that git does not know: `git
    describe --dirty` alone would miss a new plug-in. Files elsewhere do not count, since a run rewrites results itself.
    """
    try:
        described = _git(folder, "describe", "--always", "--abbrev=12")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", PACKAGE)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{described}-dirty" if changed else described


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
