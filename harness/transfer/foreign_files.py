"""Reading a folder that somebody else may have made: regular files that lie inside it, and nothing else."""

from pathlib import Path

from harness.errors import HarnessError


def require_inside(folder: Path, path: Path) -> None:
    """HarnessError where `path` is a link that leads out of `folder`, or leads nowhere."""
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve(strict=True))
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HarnessError(f"{path}: cannot be read ({reason})") from error
    if not inside:
        raise HarnessError(f"{path}: a link leads out of {folder}; put the file itself there")


def require_file_inside(folder: Path, path: Path) -> None:
    """HarnessError where `path` is no regular file inside `folder`.

    A link out of it would bring any file that this user can read into the results; a pipe or a device may never end.
    """
    require_inside(folder, path)
    if not path.is_file():
        raise HarnessError(f"{path}: not a regular file")


def files_inside(folder: Path, pattern: str) -> list[Path]:
    """The regular files inside `folder` that match a glob pattern, sorted; whatever else matches is skipped."""
    found = []
    for path in sorted(folder.glob(pattern)):
        try:
            require_file_inside(folder, path)
        except HarnessError:
            continue
        found.append(path)
    return found
