"""Files as this project writes and names them: whole or not at all, and known by the SHA-256 of their content."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

# .x.json.8z3k_x1q.json, as tempfile names them
_TEMPORARY = re.compile(r"\.(?:.+)\.[a-z0-9_]{8}(\.[^.]+)?")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical(value: Any) -> str:
    """The value as JSON: one text for equal values whatever their order, on every machine."""
    return _CANONICAL.encode(value)


def digest(value: Any, length: int = 64) -> str:
    """SHA-256 over canonical JSON."""
    return text_sha256(canonical(value))[:length]


def text_sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# No matrix, record, document or plug-in is nearly as large.
MOST_TEXT_BYTES = 2**28
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}


def read_bytes(path: Path, missing: str = "no such file", most: int | None = None) -> bytes:
    """A regular file's content; HarnessError as `require_file` says."""
    require_file(path, missing, most)
    try:
        return path.read_bytes()
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({_reason(error)})") from error


def require_file(path: Path, missing: str = "no such file", most: int | None = None) -> None:
    """HarnessError where there is no file (with the words `missing`), or one of more than `most` bytes, and where it is
    anything but a regular file, which is not opened: a pipe or a device may never end.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise HarnessError(f"{path}: cannot be read: it is {_KINDS.get(stat.S_IFMT(found.st_mode), 'a device')}")
        if most is not None and found.st_size > most:
            raise HarnessError(f"{path}: {found.st_size:,} bytes, at most {most:,} are read; is it another file?")
    except (FileNotFoundError, NotADirectoryError):
        raise HarnessError(f"{path}: {missing}") from None
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({_reason(error)})") from error
    except ValueError as error:  # a zero byte in the name
        raise HarnessError(f"{path}: no name of a file ({error})") from error


def read_text(path: Path, missing: str = "no such file") -> str:
    """A regular file's content as text, as `read_bytes` reads it; HarnessError where it is not UTF-8."""
    try:
        return read_bytes(path, missing, MOST_TEXT_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise HarnessError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error


def read_json(path: Path) -> Any:
    """A regular file's content as JSON; HarnessError where it is none."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{path}: not JSON ({error})") from error


def is_file(path: Path) -> bool:
    """Whether there is a regular file; False as well where nothing can have such a name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def require_writable(folder: Path) -> None:
    """Raise HarnessError where `folder` cannot be written to, or not be made; makes nothing."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise HarnessError(f"{folder}: cannot write here; make {existing} a writable folder or name another")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes otherwise.

    What the file system refuses in the meantime (a full disk, a quota) is a HarnessError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = _temporary(path)
    except OSError as error:
        raise HarnessError(
            f"{path.parent}: cannot write here ({error.strerror}); make the folder writable or name another"
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # mkstemp makes private files; results are meant to be read by others.
        temporary.chmod(0o644)
        temporary.replace(path)
    except HarnessError:
        raise
    except Exception as error:
        if (refusal := _refusal(error)) is None:
            raise
        if refusal.filename not in (None, name):
            raise HarnessError(worded(refusal)) from error
        raise HarnessError(
            f"{path}: cannot be written ({_reason(refusal)}); free space there, or name another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _temporary(path: Path) -> tuple[int, str]:
    """An empty file beside `path`, open and locked: only those of writers that are gone can be swept away."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            # a file system without locks, where nothing is swept either
            return handle, name
        if os.fstat(handle).st_nlink:
            return handle, name
        # swept away in the moment before it was locked
        os.close(handle)


def sweep(folder: Path, below: bool = True) -> None:
    """Remove what killed writers have left in a folder, and `below` it: the temporary files of `atomic_path`.

    One that is being written is left, since its writer holds its lock; and so is what cannot be removed.
    """
    for place, folders, names in os.walk(folder):
        if not below:
            folders.clear()
        for path in (Path(place) / name for name in names if _TEMPORARY.fullmatch(name)):
            with contextlib.suppress(OSError):
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                finally:
                    os.close(handle)


def _refusal(error: BaseException | None) -> OSError | None:
    """The system's own error, which libraries may have caught and raised another for."""
    while error:
        if isinstance(error, OSError):
            return error
        error = error.__context__
    return None


def worded(error: OSError) -> str:
    """What the system refuses, as a line for the user."""
    return f"{error.filename}: {_reason(error)}" if error.filename else _reason(error)


def _reason(error: OSError) -> str:
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
