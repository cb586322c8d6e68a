"""Copies of engines' libraries in which CPUID became UD2, for hosts whose CPU or kernel cannot fault on CPUID.

`python -m harness.host.isa.patching FOLDER ENVIRONMENT...` makes one for every environment of an engine, in FOLDER. It
needs iced-x86, a disassembler, which is beside uv in .venvs/uv; nothing that measures imports this module.

Which bytes are the instruction cannot be told from the bytes alone: 0f a2 occurs in data and within other instructions.
So each pair is looked up in the library's own table of functions (.eh_frame_hdr, which exceptions are unwound by), and
its function is decoded from the first instruction on. A pair that cannot be placed so is an error, and there is no copy.
Afterwards the copy is compared with the original, byte by byte.
"""

import argparse
import hashlib
import os
import shutil
import struct
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan import registry

CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"
# The list beside a copy that cpuid.c reads: "offset name" for every site.
SITES = "sites"
PT_GNU_EH_FRAME, SHF_EXECINSTR = 0x6474E550, 4
PCREL_SDATA4, DATAREL_SDATA4, UDATA4 = 0x1B, 0x3B, 0x03


class Section(NamedTuple):
    """A part of the file that is mapped as code: where it lies in the file, and at which address."""

    offset: int
    address: int
    size: int


class Function(NamedTuple):
    """Where a function's code lies in memory, relative to where the library is loaded."""

    start: int
    end: int


@dataclass(frozen=True)
class Library:
    """A shared library (64-bit little-endian ELF) as far as patching needs it. HarnessError where it is none."""

    name: str
    data: bytes

    def __post_init__(self) -> None:
        # 64-bit, little-endian, current version; a shared object for x86-64
        if self.data[:7] != b"\x7fELF\x02\x01\x01" or struct.unpack_from("<HH", self.data, 16) != (3, 62):
            raise HarnessError(f"{self.name}: not an x86-64 shared library")

    @property
    def code(self) -> list[Section]:
        """The sections with code."""
        (offset,) = struct.unpack_from("<Q", self.data, 40)
        size, count = struct.unpack_from("<HH", self.data, 58)
        found = [struct.unpack_from("<IIQQQQ", self.data, offset + size * number) for number in range(count)]
        return [Section(place, address, length) for _, _, flags, address, place, length in found if flags & SHF_EXECINSTR]

    @property
    def functions(self) -> list[Function]:
        """Every function, by its start, from the table that exceptions are unwound by."""
        address, offset = self._table()
        version, frame, number, table = self.data[offset : offset + 4]
        if (version, frame, number, table) != (1, PCREL_SDATA4, UDATA4, DATAREL_SDATA4):
            raise HarnessError(f"{self.name}: its table of functions is of an unknown form")
        (count,) = struct.unpack_from("<I", self.data, offset + 8)
        entries = struct.iter_unpack("<ii", self.data[offset + 12 : offset + 12 + 8 * count])
        # Each entry names the function and its frame description, relative to the table. The descriptions are in the
        # table's segment, so the distance between them is the same in the file as in memory.
        return [
            Function(address + start, address + start + self._length(offset + description, start - description))
            for start, description in entries
        ]

    def _table(self) -> tuple[int, int]:
        """Address and offset of .eh_frame_hdr."""
        (offset,) = struct.unpack_from("<Q", self.data, 32)
        size, count = struct.unpack_from("<HH", self.data, 54)
        for number in range(count):
            kind, _, place, address = struct.unpack_from("<IIQQ", self.data, offset + size * number)
            if kind == PT_GNU_EH_FRAME:
                return address, place
        raise HarnessError(f"{self.name}: has no table of functions (.eh_frame_hdr)")

    def _length(self, description: int, distance: int) -> int:
        """How long a function is; `distance`: how far its start lies behind its frame description."""
        length, _, start, code = struct.unpack_from("<IIiI", self.data, description)
        # the start, too, is given relative to where it is written down, 8 bytes into the description
        if length in (0, 0xFFFFFFFF) or start + 8 != distance:
            raise HarnessError(f"{self.name}: the frame description at {description:#x} is of an unknown form")
        return int(code)


def sites(library: Library) -> list[int]:
    """The offsets in the file of every CPUID instruction, ascending.

    HarnessError where a pair of bytes that may be one lies in code and outside every function, or in one that cannot be
    decoded.
    """
    functions = library.functions
    starts = [function.start for function in functions]
    found = []
    for section in library.code:
        for offset in _occurrences(library.data, CPUID, section):
            address = section.address + offset - section.offset
            function = functions[bisect_right(starts, address) - 1]
            if not function.start <= address < function.end:
                raise HarnessError(
                    f"{library.name}: bytes at {offset:#x} may be a CPUID instruction and lie in no function"
                )
            begin = section.offset + function.start - section.address
            if _is_instruction(library, begin, offset):
                found.append(offset)
    return found


def _occurrences(data: bytes, wanted: bytes, section: Section) -> Iterator[int]:
    end = section.offset + section.size
    offset = data.find(wanted, section.offset, end)
    while offset >= 0:
        yield offset
        offset = data.find(wanted, offset + 1, end)


def _is_instruction(library: Library, begin: int, offset: int) -> bool:
    """Whether the pair at an offset is an instruction of the function that begins at `begin`, not part of one."""
    from iced_x86 import Code, Decoder  # only here: what measures has no disassembler

    decoder = Decoder(64, library.data[begin : offset + 16], ip=begin)
    while decoder.ip < offset:
        if decoder.decode().code == Code.INVALID:
            raise HarnessError(f"{library.name}: the function at {begin:#x} cannot be decoded up to {offset:#x}")
    return bool(decoder.ip == offset and decoder.decode().code == Code.CPUID)


def patched(library: Library, offsets: Sequence[int]) -> bytes:
    """The library with the instructions at these offsets replaced. HarnessError unless they alone differ."""
    changed = bytearray(library.data)
    for offset in offsets:
        changed[offset : offset + 2] = UD2
    verify(library, bytes(changed), offsets)
    return bytes(changed)


def verify(library: Library, copy: bytes, offsets: Sequence[int]) -> None:
    """HarnessError unless a copy is the library with UD2 for CPUID at these offsets, and every other byte is the same."""
    expected, place = hashlib.sha256(), 0
    for offset in offsets:
        if library.data[offset : offset + 2] != CPUID:
            raise HarnessError(f"{library.name}: no CPUID instruction at {offset:#x}")
        expected.update(library.data[place:offset])
        expected.update(UD2)
        place = offset + 2
    expected.update(library.data[place:])
    if hashlib.sha256(copy).digest() != expected.digest():
        raise HarnessError(f"{library.name}: the copy differs in more than its CPUID instructions; make it again")


# --- Copies ----------------------------------------------------------------------------------------------------------


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
    """Make the patched copy of an engine's libraries, unless it is there; returns its folder.

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the copies; exit code 0, or 2 where one cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m harness.host.isa.patching", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the copies are kept")
    parser.add_argument("environments", type=Path, nargs="+", help="environments of engines, like .venvs/bench-1.16.0")
    given = parser.parse_args(arguments)
    engines = {
        variant["environment"]: engine
        for engine in registry.names("engine")
        for variant in registry.find("engine", engine).constants.get("VARIANTS", {}).values()
    }
    try:
        for environment in given.environments:
            copy = make_copy(engines[environment.name], environment.absolute() / "bin/python", given.folder.absolute())
            count = len((copy / SITES).read_text(encoding="utf-8").splitlines())
            print(f"{environment.name}: {count} CPUID instructions in a patched copy of its engine")
    except (HarnessError, KeyError) as error:
        print(f"error: no patched copy: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
