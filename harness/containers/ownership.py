"""Which user a container runs as, who owns its folders, and which process a container belongs to."""

import contextlib
import os
import shlex
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.files import require_writable

# The Dockerfiles' user: containers run as this one where the caller is root, because a container never does.
UID = GID = 10001


@dataclass(frozen=True)
class Folder:
    """A folder, and the owner that it and everything in it are to have in the end."""

    path: Path
    uid: int
    gid: int


@dataclass(frozen=True)
class User:
    """The user that the container runs as, and the folders to give back when it has ended."""

    uid: int
    gid: int
    restore: Sequence[Folder] = ()

    @property
    def name(self) -> str:
        """As the engine takes it."""
        return f"{self.uid}:{self.gid}"


@contextlib.contextmanager
def handed_over(folders: Sequence[Path]) -> Iterator[User]:
    """Make the folders, and let the user that the container runs as own them until it has ended.

    That user is the caller; where the caller is root it is the owner of the first folder, and where that is root as
    well, a fixed user. In the end everything in the folders belongs to the caller, or to that owner.
    """
    for folder in folders:
        require_writable(folder)
        folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() != 0:
        yield User(os.getuid(), os.getgid())
        return
    found = folders[0].stat() if folders else Path("/").stat()
    restore = [Folder(folder, found.st_uid, found.st_gid) for folder in folders]
    user = User(UID, GID, restore) if found.st_uid == 0 else User(found.st_uid, found.st_gid, restore)
    try:
        for folder in folders:
            give(Folder(folder, user.uid, user.gid))
        yield user
    finally:
        for entry in restore:
            give(entry)


def require_readable(paths: Sequence[Path], user: User) -> None:
    """Raise HarnessError where a container that runs as `user` could not read one of the paths, or anything below it.

    Root may read everything, but a container that root starts does not run as root. The folders above do not matter,
    because a mount begins at the path itself.
    """
    for path in paths:
        for one in (path, *path.rglob("*")):
            if not _may_read(one, user):
                raise HarnessError(
                    f"{one}: a container, which runs as user {user.name}, may not read it; "
                    f"run: chmod -R a+rX {shlex.quote(str(path))} (or use RUNNER=local)"
                )


def _may_read(path: Path, user: User) -> bool:
    try:
        stat = path.stat()
    except FileNotFoundError:
        # a link to nowhere, or gone meanwhile
        return True
    wanted = 0o5 if path.is_dir() else 0o4
    shift = 6 if stat.st_uid == user.uid else 3 if stat.st_gid == user.gid else 0
    return stat.st_mode >> shift & wanted == wanted


def give(folder: Folder) -> None:
    """Change the owner of a folder and of everything in it; needs root. Links are not followed."""
    with contextlib.suppress(FileNotFoundError):
        os.chown(folder.path, folder.uid, folder.gid, follow_symlinks=False)
    for here, names, files in os.walk(folder.path):
        for name in [*names, *files]:
            with contextlib.suppress(FileNotFoundError):
                os.chown(Path(here) / name, folder.uid, folder.gid, follow_symlinks=False)


# --- Which process a container belongs to ----------------------------------------------------------------------------


def this_process() -> str:
    """This process, as a container's label names it: host, PID namespace, boot, process id and start time."""
    return f"{_place()} {_boot()} {os.getpid()} {_started(os.getpid())}"


def is_gone(label: str) -> bool:
    """Whether the process of a label has ended; False where it cannot be seen, as on another host."""
    try:
        host, namespace, boot, pid, started = label.split()
    except ValueError:
        return False
    if host != socket.gethostname():
        return False
    # After a restart nothing that ran before is left, in whatever namespace.
    if boot != _boot():
        return True
    return f"{host} {namespace}" == _place() and _started(int(pid)) != started


def _place() -> str:
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = "-"
    return f"{socket.gethostname()} {namespace}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "-"


def _started(pid: int) -> str:
    """When a process started, in clock ticks since boot: process ids are used again, but not with the same start."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "-"
    state, *fields = stat.rpartition(")")[2].split()
    return "-" if state in ("Z", "X") else fields[18]
