import os
import subprocess
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.host.isa.copies import LIBRARY, SITES, copy_of, make_copy
from harness.host.isa.features import mask
from harness.host.isa.prepare import main as prepare
from harness.host.isa.shown import HOST, Shown, host_flags, masked, obstacle, show
from harness.plan.cpu_table import cpus, find_cpu
from tests.shown_kit import ENGINES, like_target, on_x86_64, with_compiler

TARGET = find_cpu("i9-9900K")
LINUX = "Linux x86_64"


def test_the_host_is_shown_as_it_is_and_needs_nothing(tmp_path: Path) -> None:
    assert show("host", TARGET, "onnxruntime-1.16.0", tmp_path / "bin/python") == HOST == Shown("host")


# --- Where it cannot be done -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["Linux aarch64", "Darwin arm64", "Darwin x86_64", "Linux i686"])
def test_other_machines_cannot_show_it_and_say_so(machine: str) -> None:
    said = obstacle(TARGET, TARGET.features, machine)
    assert "Intel Core i9-9900K's instruction set can be shown on x86-64 Linux only" in said and machine in said


def test_a_host_needs_all_features_of_the_target_and_says_which_it_lacks() -> None:
    newest = cpus()["Xeon-8480"]
    for cpu in cpus().values():
        assert obstacle(cpu, newest.features, LINUX) == ""
    assert obstacle(TARGET, TARGET.features - {"fma", "avx2"}, LINUX) == (
        "this CPU lacks avx2, fma of the Intel Core i9-9900K's instruction set; measure on one that has it, or name "
        "another bench.target"
    )
    assert "lacks amx_bf16, amx_int8, amx_tile, avx512_bf16" in obstacle(newest, cpus()["Xeon-8380"].features, LINUX)


def test_the_hosts_features_are_what_the_kernel_lists(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    cpuinfo = tmp_path / "proc/cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nflags\t\t: fpu sse avx2 fma avx512f hypervisor\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    )
    assert host_flags(tmp_path) == {"avx2", "fma", "avx512f"}
    cpuinfo.write_text("processor : 0\nFeatures : fp asimd\n")
    assert host_flags(tmp_path) == frozenset()
    cpuinfo.unlink()
    assert host_flags(tmp_path) == frozenset()


@like_target
def test_what_setup_did_not_make_is_named_with_what_makes_it(tmp_path: Path) -> None:
    python = tmp_path / "bench-1.16.0/bin/python"
    with pytest.raises(
        HarnessError, match=r"cpuid.so: not there, which a C compiler makes; install gcc, then run: make"
    ):
        show("target", TARGET, "onnxruntime-1.16.0", python)
    (tmp_path / "isa").mkdir()
    (tmp_path / "isa" / LIBRARY).touch()
    with pytest.raises(HarnessError, match="no environment of Python; run: make setup"):
        masked("onnxruntime-1.16.0", python, TARGET.features, "patched")
    packages = tmp_path / "bench-1.16.0/lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    with pytest.raises(HarnessError, match="no such library; run: make setup"):
        masked("onnxruntime-1.16.0", python, TARGET.features, "patched")
    (packages / "onnxruntime/capi").mkdir(parents=True)
    (packages / "onnxruntime/capi/onnxruntime_pybind11_state.abi3.so").touch()
    with pytest.raises(HarnessError, match=r"no patched copy of onnxruntime-1.16.0's libraries as they are installed"):
        masked("onnxruntime-1.16.0", python, TARGET.features, "patched")


def test_an_engine_that_names_no_libraries_needs_a_cpu_that_can_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        'VARIANTS = {"1": {"version": "1", "environment": "bench-mine"}}\nENGINE = None\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "isa").mkdir()
    (tmp_path / "isa" / LIBRARY).touch()
    (tmp_path / "bench-mine/lib/python3.11/site-packages").mkdir(parents=True)
    python = tmp_path / "bench-mine/bin/python"
    with pytest.raises(
        HarnessError, match="names no libraries to patch; measure on an Intel CPU, or give its file LIB"
    ):
        masked("mine:ENGINE-1", python, TARGET.features, "patched")
    assert masked("mine:ENGINE-1", python, TARGET.features, "faulting").way == "faulting"


def test_without_a_compiler_one_line_says_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert prepare([str(tmp_path / "isa"), str(tmp_path / "bench-1.16.0")]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "there is no C compiler; install gcc" in said or "it works on x86-64 Linux" in said
    assert said.endswith("`make bench` measures under this machine's own.")
    assert not (tmp_path / "isa" / LIBRARY).exists()


# --- How it is done --------------------------------------------------------------------------------------------------


@on_x86_64
@with_compiler
@pytest.mark.parametrize("engine", ENGINES)
def test_a_copy_is_of_what_is_installed_and_made_once(environments: Path, engine: str) -> None:
    python = environments / ENGINES[engine] / "bin/python"
    copy = copy_of("onnxruntime", python, environments / "isa")
    before = (copy / SITES).stat().st_mtime_ns
    assert make_copy("onnxruntime", python, environments / "isa") == copy
    assert (copy / SITES).stat().st_mtime_ns == before
    files = [
        path for path in copy.rglob("*") if path.is_file() and not path.is_symlink() and "__pycache__" not in str(path)
    ]
    assert {path.name.partition(".")[0] for path in files} == {"onnxruntime_pybind11_state", SITES}, (
        "the rest are links"
    )
    assert all(path.exists() for path in copy.rglob("*")), "and none of them leads nowhere"


IN_PYTHON = """
import faulthandler; faulthandler.enable()
import ctypes, threading, numpy, onnxruntime, os
process = ctypes.CDLL(None)
process.harness_cpuid_answered.restype = ctypes.c_ulong
def ebx():
    words = (ctypes.c_uint32 * 4)()
    process.harness_cpuid(7, 0, words)
    return words[1]
found = [ebx()]
thread = threading.Thread(target=lambda: found.append(ebx())); thread.start(); thread.join()
faulthandler.disable(); faulthandler.enable(); found.append(ebx())
if os.fork() == 0:
    os._exit(ebx() != found[0])
assert os.wait()[1] == 0
assert len(set(found)) == 1, found
print(onnxruntime.__version__, f"{found[0]:x}", process.harness_cpuid_answered() > 20, onnxruntime.__file__)
"""


@on_x86_64
@with_compiler
@like_target
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_shown_the_target_in_a_python_with_faulthandler_threads_and_children(
    environments: Path, engine: str
) -> None:
    python = environments / ENGINES[engine] / "bin/python"
    shown = show("target", TARGET, engine, python)
    variables = {**shown.variables, "PYTHONPATH": os.pathsep.join(shown.path)}
    done = subprocess.run([str(python), "-c", IN_PYTHON], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, ebx, asked, file = done.stdout.split()
    keep = mask(TARGET.features)[7, 0][1]
    assert (int(ebx, 16) & ~keep, asked) == (0, "True"), "the engine asked, and was answered"
    if shown.way == "patched":
        assert file.startswith(str(environments / "isa"))
    assert done.stderr.count("harness cpuid: ") == 1


@on_x86_64
@with_compiler
def test_a_crash_in_a_python_that_is_shown_the_target_is_still_reported(environments: Path) -> None:
    python = environments / "bench-1.16.0/bin/python"
    shown = masked("onnxruntime-1.16.0", python, TARGET.features)
    variables = {**shown.variables, "PYTHONPATH": os.pathsep.join(shown.path)}
    for raised, code in (("ctypes.string_at(8)", -11), ("os.kill(os.getpid(), 4)", -4)):
        crash = f"import faulthandler, ctypes, os, onnxruntime; faulthandler.enable(); {raised}"
        done = subprocess.run([str(python), "-c", crash], env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert "Fatal Python error: " in done.stderr, "faulthandler came second, and came"
