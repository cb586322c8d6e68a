"""`python -m harness.host.isa.prepare FOLDER ENVIRONMENT...`: what showing another instruction set takes, into FOLDER.

Compiles the library that answers CPUID, and makes a patched copy of the engine in each environment. `make setup` runs
it, and so does Dockerfile.cpu. It needs a C compiler, and iced-x86 beside the standard library.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.files import atomic_path
from harness.host.isa.copies import LIBRARY, SITES, make_copy
from harness.plan import registry

SOURCE = Path(__file__).with_name("cpuid.c")
FLAGS = ("-O2", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden")


def compile_library(folder: Path) -> Path:
    """Compile the library into a folder; returns its path. HarnessError names what is missing."""
    if (machine := f"{platform.system()} {platform.machine()}") != "Linux x86_64":
        raise HarnessError(f"it works on x86-64 Linux, and this is {machine}")
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise HarnessError("there is no C compiler; install gcc (Debian, Ubuntu: apt-get install gcc libc6-dev)")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / LIBRARY) as temporary:
        command = [compiler, *FLAGS, "-o", str(temporary), str(SOURCE), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            words = (done.stderr.strip().splitlines() or ["it says nothing"])[0]
            raise HarnessError(f"{compiler} cannot compile {SOURCE.name}: {words}")
    return folder / LIBRARY


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 where everything is made, 1 where not: a line on stderr says why, and what that means."""
    parser = argparse.ArgumentParser(prog="python -m harness.host.isa.prepare", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the library and the copies are kept")
    parser.add_argument("environments", type=Path, nargs="+", help="environments of engines, like .venvs/bench-1.16.0")
    given = parser.parse_args(arguments)
    engines = {
        variant["environment"]: engine
        for engine in registry.names("engine")
        for variant in registry.find("engine", engine).constants.get("VARIANTS", {}).values()
    }
    try:
        compile_library(given.folder)
        for environment in given.environments:
            copy = make_copy(engines[environment.name], environment.absolute() / "bin/python", given.folder.absolute())
            count = len((copy / SITES).read_text(encoding="utf-8").splitlines())
            print(f"{environment.name}: {count} CPUID instructions answered in a patched copy of its engine")
    except HarnessError as error:
        print(
            f"The target's instruction set cannot be shown: {error}. Until then `make bench` measures under this "
            "machine's own.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
