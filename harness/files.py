"""Files as this project writes and names them: whole or not at all, and known by the SHA-256 of their content."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

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
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as error:
        raise HarnessError(
            f"{path.parent}: cannot write here ({error.strerror}); make the folder writable or name another"
        ) from error
    os.close(handle)
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
    # urllib wraps what the network said
    if isinstance(inner := getattr(error, "reason", None), OSError):
        return _reason(inner)
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
