"""Finds the CPUID instructions of a shared library, and replaces them by UD2.

Which bytes are the instruction cannot be told from the bytes alone: 0f a2 occurs in data and within other instructions.
So each pair is looked up in the library's own table of functions (.eh_frame_hdr, which exceptions are unwound by), and
its function is decoded from the first instruction on. A pair that cannot be placed so is an error, and nothing is
patched. Afterwards the patched library is compared with the original, byte by byte.
"""

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.errors import HarnessError

CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"
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
        return [
            Section(place, address, length) for _, _, flags, address, place, length in found if flags & SHF_EXECINSTR
        ]

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
    """HarnessError unless a copy is the library with UD2 for CPUID at these offsets, and otherwise the same."""
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
