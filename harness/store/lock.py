"""One at a time in a profile's folders: who trains, merges or unpacks there."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from harness.errors import HarnessError
from harness.files import require_writable
from harness.store.paths import Paths


@contextmanager
def alone(paths: Paths, profile: str) -> Iterator[int]:
    """Hold the profile's lock: two runs that train the same cells would overwrite each other's checkpoints, and a merge
    meanwhile would judge records that are about to be replaced.

    Gives its file descriptor: a process that inherits it holds the lock too, for as long as it lives. Raises
    HarnessError where somebody else holds it, or a folder cannot be written to.
    """
    path = paths.artifacts / profile / ".lock"
    # Found out now, not after an hour of training.
    for folder in (path.parent, paths.results / profile):
        require_writable(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HarnessError(
                f"{path}: another run is training, merging or unpacking profile {profile}; wait for it or stop it"
            ) from None
        yield file.fileno()
