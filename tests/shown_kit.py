"""What showing another instruction set takes, made once for all tests; and C programs that are shown one.

Tests are skipped, with the reason, where this machine cannot do what they need.
"""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.host.isa.copies import LIBRARY
from harness.host.isa.prepare import compile_library
from harness.host.isa.shown import can_fault, obstacle
from harness.plan.cpu_table import find_cpu
from tests.documents import ROOT

ENGINES = {"onnxruntime-1.16.0": "bench-1.16.0", "onnxruntime-current": "bench-current"}

on_x86_64 = pytest.mark.skipif(
    f"{platform.system()} {platform.machine()}" != "Linux x86_64", reason="CPUID is answered on x86-64 Linux only"
)
with_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: apt-get install gcc libc6-dev")
faulting = pytest.mark.skipif(not can_fault(), reason="this kernel or CPU cannot let CPUID fault (ENODEV)")
like_target = pytest.mark.skipif(
    bool(obstacle(find_cpu("i9-9900K"))), reason=obstacle(find_cpu("i9-9900K")) or "the target can be shown"
)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that answers CPUID."""
    return compile_library(tmp_path_factory.mktemp("isa"))


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Path:
    """A folder like .venvs: the engines' environments and, made here, what shows them another instruction set."""
    pytest.importorskip("iced_x86", reason="no disassembler: `make test` sets it up")
    from harness.host.isa.copies import make_copy

    folder = tmp_path_factory.mktemp("venvs")
    for name in ENGINES.values():
        if not (ROOT / ".venvs" / name).is_dir():
            pytest.skip(f"no .venvs/{name}: `make setup` makes it")
        (folder / name).symlink_to(ROOT / ".venvs" / name)
    (folder / "isa").mkdir()
    shutil.copy(library, folder / "isa" / LIBRARY)
    for name in ENGINES.values():
        make_copy("onnxruntime", folder / name / "bin/python", folder / "isa")
    return folder


def build(folder: Path, source: str, *flags: str) -> Path:
    """A C program, compiled."""
    code, program = folder / "program.c", folder / "program"
    code.write_text(source)
    subprocess.run(["cc", "-O1", "-o", str(program), str(code), "-pthread", *flags], check=True)
    return program


def run(program: Path, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program with these variables and few others."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    command = [str(program), *arguments]
    return subprocess.run(command, env=kept | variables, capture_output=True, text=True, timeout=60, check=False)
