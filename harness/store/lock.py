"""One run at a time in a profile's folders, whether it trains, measures, merges or unpacks; or several that share
them out.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessError
from harness.files import require_writable, sweep
from harness.store.paths import Paths


@contextmanager
def alone(paths: Paths, profile: str, sharing: bool = False) -> Iterator[int]:
    """Hold the profile's lock; with `sharing`, beside others that share it (their claims say who makes what).

    Two runs that train the same cells would overwrite each other's checkpoints, two that measure would share cores and
    delete each other's raw files, and a merge meanwhile would judge records that are about to be replaced. The kernel
    lets go of the lock when its holder ends, however it ends. What killed writers have left is swept away.

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
            f"{path}: another run is training, measuring, merging or unpacking profile {profile}; wait for it or "
            "stop it"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise HarnessError(
            f"{path}: cannot be locked ({error.strerror}); keep artifacts on a file system that has locks"
        ) from error
    try:
        # Those who share may be on other machines, whose locks on single files need not be seen from here.
        for folder in () if sharing else (path.parent, paths.results / profile):
            sweep(folder)
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """The lock file, made where it is missing. Nothing is ever written to it, and a link is not followed."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    except PermissionError:
        # Another user's, which to read is enough: NFS alone asks for more.
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | flags)
        raise HarnessError(f"{path}: another user's, and this one may not read it; make it readable") from None
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise HarnessError(f"{path}: cannot be opened as a lock ({reason}); delete it") from error
