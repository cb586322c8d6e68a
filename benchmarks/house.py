"""house.json: how many files an addition takes, and how tidy the package is.

Every figure is counted when it is asked for: plug-ins are dropped in and used, modules and their imports are read from
the source, and lines of the past from git.
"""

import subprocess
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import grimp

from benchmarks import ROOT, Figures
from benchmarks.user_commands import plan_seconds
from harness.errors import HarnessError
from tests import drop_in, engine_drop_in

PACKAGES = ("harness", "benchmarks")
# The last revision in which each kind of plug-in had to be added in many places.
BEFORE = "8b8f6c0"
# A plug-in's kind, as the figures name it -> adds one to an empty folder, uses it, and counts the files that it took.
ADDITIONS: dict[str, Callable[[Path], int]] = {
    "architecture": lambda folder: drop_in.walk("architecture", folder),
    "dataset": lambda folder: drop_in.walk("dataset", folder),
    "criterion": lambda folder: drop_in.walk("criterion", folder),
    "kd": lambda folder: drop_in.walk("method", folder),
    "engine": engine_drop_in.walk,
}


def measure() -> Figures:
    """Every figure; prints each as it comes.

    `package_lines` are those of harness/ alone. `package_lines_before` are those of harness/ in the revision
    `before_revision`, where the benchmarks were a part of it: `benchmarks_lines_before` of them.
    """
    figures: Figures = {}

    def note(name: str, value: float | str) -> None:
        figures[name] = value
        print(f"{name}: {value:.2f}" if isinstance(value, float) else f"{name}: {value}", flush=True)

    for kind, add in ADDITIONS.items():
        with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
            note(f"files_to_add_{kind}", add(Path(folder)))
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    note("modules_outside_layers", len(outside_layers(contract, _children(ROOT / "harness"))))
    sources = [path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    note("same_named_modules", len(same_named(sources)))
    note("import_cycles", len(cycles(grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None))))
    note("before_revision", BEFORE)
    note("package_lines_before", lines_of(BEFORE, "harness"))
    note("benchmarks_lines_before", lines_of(BEFORE, "harness/benchmarks"))
    for name, package in {"package_lines": "harness", "benchmarks_lines": "benchmarks"}.items():
        note(name, sum(len(path.read_bytes().splitlines()) for path in (ROOT / package).rglob("*.py")))
    note("plan_10000_cells_s", plan_seconds(ROOT))
    return figures


def outside_layers(contract: str, modules: Iterable[str]) -> set[str]:
    """Which modules, named within the package, are in no layer of the contract, the text of a pyproject.toml."""
    contracts = tomllib.loads(contract)["tool"]["importlinter"]["contracts"]
    layers = [layer for one in contracts if one["type"] == "layers" for layer in one["layers"]]
    return set(modules) - {name.strip() for layer in layers for name in layer.split("|")}


def _children(package: Path) -> set[str]:
    """The modules and packages in a package's folder, by name."""
    return {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()} - {
        "__init__"
    }


def same_named(sources: Iterable[Path]) -> list[str]:
    """The names that several modules or packages among these source files have, wherever they are."""
    names = Counter(path.parent.name if path.stem == "__init__" else path.stem for path in sources)
    return sorted(name for name, count in names.items() if count > 1 and name != "__main__")


def cycles(graph: grimp.ImportGraph) -> list[set[str]]:
    """The largest groups of modules in which each imports every other one, directly or through others of the group."""
    imported = {module: graph.find_upstream_modules(module) for module in graph.modules}
    found: list[set[str]] = []
    for module in sorted(imported):
        if not any(module in group for group in found):
            group = {other for other in imported[module] if module in imported[other]} | {module}
            found += [group] if len(group) > 1 else []
    return found


def lines_of(revision: str, folder: str) -> int:
    """The lines of all Python files below a folder in a revision of git; HarnessError where git does not have that."""
    names = _git("ls-tree", "-r", "--name-only", "-z", revision, folder).decode().split("\0")
    return sum(len(_git("show", f"{revision}:{name}").splitlines()) for name in names if name.endswith(".py"))


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise HarnessError(f"git {' '.join(arguments)}: {done.stderr.decode().strip()}; this needs a full clone")
    return done.stdout
