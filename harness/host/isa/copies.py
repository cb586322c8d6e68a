"""Copies of engines' libraries in which CPUID became UD2, for hosts whose CPU or kernel cannot fault on CPUID.

One for each environment and content of the libraries. Making one takes a disassembler; what measures only looks up
where a copy is.
"""

import hashlib
import os
import shutil
from pathlib import Path

from harness.errors import HarnessError
from harness.files import file_sha256
from harness.host.isa.patching import Library, patched, sites, verify
from harness.plan import registry

# The library that answers CPUID, in the same folder as the copies.
LIBRARY = "cpuid.so"
# The list beside a copy that cpuid.c reads: "offset name" for every site.
SITES = "sites"


def packages(python: Path) -> Path:
    """The folder of an interpreter's environment that packages are installed in."""
    found = sorted(python.parents[1].glob("lib/python3*/site-packages"))
    if not found:
        raise HarnessError(f"{python.parents[1]}: no environment of Python; run: make setup")
    return found[-1]


def libraries(engine: str, python: Path) -> list[Path]:
    """The libraries of an engine's plug-in that choose kernels (its LIBRARIES), relative to the environment's packages.

    HarnessError where one is missing; an empty list where the engine names none.
    """
    folder, found = packages(python), []
    for pattern in registry.find("engine", engine).constants.get("LIBRARIES", ()):
        matches = sorted(path.relative_to(folder) for path in folder.glob(pattern))
        if not matches:
            raise HarnessError(f"{folder / pattern}: no such library; run: make setup")
        found += matches
    return found


def copy_of(engine: str, python: Path, folder: Path) -> Path:
    """Where the patched copy of an engine's libraries lies, in `folder`: named by the hash of what it is a copy of."""
    names = libraries(engine, python)
    digest = hashlib.sha256("".join(file_sha256(packages(python) / name) for name in names).encode()).hexdigest()
    return folder / python.parents[1].name / digest[:16]


def make_copy(engine: str, python: Path, folder: Path) -> Path:
    """Make the patched copy of an engine's libraries, unless it is there; returns its folder. Needs iced-x86.

    On Python's path that folder goes before the environment's own packages. It has a package of the same name: links to
    everything that is installed, with the patched libraries in place of the originals. HarnessError where a library
    cannot be patched.
    """
    installed, copy = packages(python), copy_of(engine, python, folder)
    if (copy / SITES).is_file():
        return copy
    # Copies of wheels that are no longer installed are of no use to anybody.
    shutil.rmtree(copy.parent, ignore_errors=True)
    listed = []
    for name in libraries(engine, python):
        library = Library(str(name), (installed / name).read_bytes())
        offsets = sites(library)
        for depth in range(len(name.parts) - 1, 0, -1):
            _link(installed / Path(*name.parts[:depth]), copy / Path(*name.parts[:depth]))
        (copy / name).unlink()
        (copy / name).write_bytes(patched(library, offsets))
        verify(library, (copy / name).read_bytes(), offsets)
        listed += [f"{offset:x} {name.as_posix()}\n" for offset in offsets]
    # Written last: a copy without its list is made again.
    (copy / SITES).write_text("".join(listed), encoding="utf-8")
    return copy


def _link(installed: Path, copy: Path) -> None:
    """Make `copy` a folder of links to what is in `installed`; a link in its place gives way, what is there stays."""
    if copy.is_symlink():
        copy.unlink()
    copy.mkdir(parents=True, exist_ok=True)
    for entry in installed.iterdir():
        place = copy / entry.name
        if not place.exists():
            # Relative, so that the checkout can be moved, or copied into an image.
            place.symlink_to(os.path.relpath(entry, copy))
