import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.host.isa.patching import CPUID, UD2, Library, patched, sites, verify
from tests.documents import ROOT
from tests.shown_kit import on_x86_64, with_compiler

pytest.importorskip("iced_x86", reason="no disassembler: `make test` sets it up")
pytestmark = [on_x86_64, with_compiler]

# Two real instructions; the same bytes as a constant in an instruction, in read-only data, and in a displacement.
SOURCE = r"""
static unsigned leaf(unsigned number) {
  unsigned a = number, b, c = 0, d;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  return b;
}
const unsigned char data[] = "\x0f\xa2\x0f\xa2";
unsigned first(void) { return leaf(7); }
unsigned second(unsigned x) { return x == 3 ? leaf(x) + 1 : x * 0x11a20f22; }
unsigned long constant(void) { return 0x0fa20fa20fa20fa2; }
unsigned char far(const unsigned char *p) { return p[0x0000a20f]; }
unsigned const *read(void) { return (unsigned const *)data; }
"""
# Code that no table of functions knows.
HIDDEN = '__asm__(".text\\n.globl hidden\\nhidden: cpuid\\n ret\\n");'
# A function with data in it: the decoder comes out of step, and what follows cannot be told.
UNDECODABLE = '__asm__(".text\\n.cfi_startproc\\n.byte 0x06\\n cpuid\\n ret\\n.cfi_endproc\\n");'


def library(folder: Path, source: str, *flags: str) -> Library:
    code, made = folder / "lib.c", folder / "lib.so"
    code.write_text(source)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(made), str(code), *flags], check=True)
    return Library("lib.so", made.read_bytes())


@pytest.mark.parametrize("flags", [(), ("-s",), ("-O2", "-fcf-protection=full"), ("-O0",)], ids=str)
def test_instructions_are_found_and_the_same_bytes_elsewhere_are_not(tmp_path: Path, flags: tuple[str, ...]) -> None:
    found = library(tmp_path, SOURCE, *flags)
    offsets = sites(found)
    assert found.data.count(CPUID) >= 5, "the other pairs are there"
    listed = _by_objdump(tmp_path / "lib.so")
    assert len(offsets) >= 1
    if listed is not None:
        assert offsets == listed


def test_the_copy_answers_differently_in_those_two_bytes_alone(tmp_path: Path) -> None:
    found = library(tmp_path, SOURCE)
    offsets = sites(found)
    copy = patched(found, offsets)
    differ = [at for at, (one, two) in enumerate(zip(found.data, copy, strict=True)) if one != two]
    assert differ == [offset + 1 for offset in offsets], "0f a2 and 0f 0b share their first byte"
    for offset in offsets:
        assert copy[offset : offset + 2] == UD2


@pytest.mark.parametrize("change", ["another byte", "one site less", "shorter"])
def test_a_copy_that_differs_in_more_is_refused(tmp_path: Path, change: str) -> None:
    found = library(tmp_path, SOURCE)
    offsets = sites(found)
    copy = bytearray(patched(found, offsets))
    if change == "another byte":
        copy[len(copy) // 2] ^= 1
    elif change == "shorter":
        del copy[-1]
    else:
        copy[offsets[0] : offsets[0] + 2] = CPUID
    with pytest.raises(HarnessError, match="differs in more than its CPUID instructions"):
        verify(found, bytes(copy), offsets)
    with pytest.raises(HarnessError, match="no CPUID instruction at 0x0"):
        patched(found, [0])


@pytest.mark.parametrize(
    ("extra", "said"),
    [(HIDDEN, "lie in no function"), (UNDECODABLE, "cannot be decoded up to")],
    ids=["hidden", "data"],
)
def test_what_cannot_be_told_is_an_error(tmp_path: Path, extra: str, said: str) -> None:
    with pytest.raises(HarnessError, match=said):
        sites(library(tmp_path, SOURCE + extra))


def test_a_library_without_the_instruction_has_no_sites(tmp_path: Path) -> None:
    assert sites(library(tmp_path, "int one(void) { return 1; }")) == []


def test_what_is_no_library_or_has_no_table_of_functions_is_refused(tmp_path: Path) -> None:
    whole = library(tmp_path, SOURCE)
    for data in (b"", b"MZ" + whole.data[2:], whole.data[:18] + struct.pack("<H", 183) + whole.data[20:]):
        with pytest.raises(HarnessError, match="not an x86-64 shared library"):
            Library("other.so", data)
    bare = library(tmp_path, SOURCE, "-fno-asynchronous-unwind-tables", "-fno-exceptions", "-nostdlib")
    with pytest.raises(HarnessError, match=r"no table of functions|lie in no function"):
        sites(bare)


@pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump to compare with")
def test_the_engines_instructions_are_those_that_a_whole_disassembly_finds() -> None:
    (path,) = (ROOT / ".venvs/bench-1.16.0").glob(
        "lib/python3*/site-packages/onnxruntime/capi/onnxruntime_pybind11*.so"
    )
    found = sites(Library(path.name, path.read_bytes()))
    assert len(found) == 53
    assert found == _by_objdump(path)


def _by_objdump(path: Path) -> list[int] | None:
    """The offsets in a file of what objdump takes for the instruction; None without objdump."""
    if shutil.which("objdump") is None:
        return None
    done = subprocess.run(["objdump", "-d", "-F", "--no-show-raw-insn", str(path)], capture_output=True, text=True)
    headers = subprocess.run(["objdump", "-h", str(path)], capture_output=True, text=True).stdout
    code = re.findall(r"^\s*\d+ (\.\S+)\s+([0-9a-f]+)\s+([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)", headers, re.MULTILINE)
    addresses = [int(at, 16) for at in re.findall(r"^\s*([0-9a-f]+):\s+cpuid", done.stdout, re.MULTILINE)]
    sections = [(int(address, 16), int(size, 16), int(offset, 16)) for _, size, address, offset in code]
    return sorted(
        at - address + offset
        for at in addresses
        for address, size, offset in sections
        if address <= at < address + size
    )
