"""One run at a time in a profile's folders, whether it trains, merges or unpacks; or several that share them out."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessError
from harness.files import require_writable
from harness.store.paths import Paths


@contextmanager
def alone(paths: Paths, profile: str, sharing: bool = False) -> Iterator[int]:
    """Hold the profile's lock; with `sharing`, beside others that share it (their claims say who makes what).

    Two runs that train the same cells would overwrite each other's checkpoints, and a merge meanwhile would judge
    records that are about to be replaced.

    Yields the lock's file descriptor: a process that inherits it holds the lock too, for as long as it lives. Raises
    HarnessError where another run holds the lock, where it cannot be taken, and where a folder cannot be written to.
    """
    path = paths.artifacts / profile / ".lock"
    # Found out now, not after an hour of training.
    for folder in (path.parent, paths.results / profile):
        require_writable(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if sharing else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise HarnessError(
            f"{path}: another run is training, merging or unpacking profile {profile}; wait for it or stop it"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise HarnessError(
            f"{path}: cannot be locked ({error.strerror}); keep artifacts on a file system that has locks"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """The lock file, made where it is missing. Nothing is ever written to it, and a link is not followed."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise HarnessError(f"{path}: cannot be opened as a lock ({reason}); delete it") from error
