"""The plug-ins there are: their names, constants and source digests, read from their files without importing them.

A plug-in is one file in its kind's folder, or `"package.module:NAME"` anywhere on Python's path. What planning needs to
know about it stands in the file as constants with literal values, in capitals: TITLE (its name in tables), PARAMETERS
(its own settings with their defaults), and what its kind's folder documents beside these. Everything else is read when
the plug-in is used, by `load`.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from harness.errors import HarnessError
from harness.files import is_file, read_text

Kind = Literal["architecture", "dataset", "criterion", "method", "engine"]
ROOT = Path(__file__).parents[2]
# Kind -> the package with a file for each plug-in. A file whose name begins with an underscore is none.
PACKAGES: Mapping[Kind, str] = {
    "architecture": "harness.architectures",
    "dataset": "harness.datasets",
    "criterion": "harness.compression.pruning",
    "method": "harness.compression.distillation",
    "engine": "harness.bench.engines",
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Plugin:
    """One plug-in, as far as its file tells without running it."""

    kind: Kind
    name: str
    path: Path
    constants: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the syntax trees of the file, of those beside it that it imports, and of what its kind shares:
        comments, docstrings and formatting do not count. HarnessError where one of them is no Python.
        """
        with _named(self.kind, self.name, self.path):
            return _code(self.path)

    @property
    def label(self) -> str:
        """The name as part of ids and file names."""
        return self.name.partition(":")[2].lower() or self.name

    @property
    def title(self) -> str:
        """The name in tables."""
        return str(self.constants.get("TITLE", self.label.upper()))

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Its own settings, with their defaults."""
        found: Mapping[str, Any] = self.constants.get("PARAMETERS", {})
        return found


def names(kind: Kind) -> list[str]:
    """The plug-ins of the package, by name."""
    folder = ROOT / PACKAGES[kind].replace(".", "/")
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def find(kind: Kind, name: str) -> Plugin:
    """What the file of a plug-in says of it. HarnessError where there is none, or where it is no Python."""
    path = _path(kind, name)
    with _named(kind, name, path):
        return Plugin(kind, name, path, _read(path).constants)


@contextmanager
def _named(kind: Kind, name: str, path: Path) -> Iterator[None]:
    """Have what cannot be read as Python say of which plug-in it is."""
    try:
        yield
    # a ValueError: a zero byte; the others: nested, or repeated, too often for Python
    except (HarnessError, OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise HarnessError(f"{kind} {name!r}: {path} cannot be read: {error}") from error


def load(kind: Kind, name: str, base: type[Any] = object) -> Any:
    """Import a plug-in: the object that its module defines under the kind's name in capitals (METHOD, CRITERION, ...).

    HarnessError where the module cannot be imported, defines no such object, or one that is no `base`.
    """
    module, _, attribute = name.partition(":")
    attribute = attribute or kind.upper()
    module = module if ":" in name else f"{PACKAGES[kind]}.{name}"
    _path(kind, name)
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, TypeError) as error:  # TypeError: of a class that leaves a method out
        raise HarnessError(f"{kind} {name!r}: {module} does not provide {attribute}: {error}") from error
    if not isinstance(found, base):
        raise HarnessError(f"{kind} {name!r}: {attribute} in {module} is no {base.__name__}, which a plug-in has to be")
    return found


def resolve(kind: Kind, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a plug-in: its defaults, and over them `given`. ValueError if one is unknown or mistyped."""
    defaults = find(kind, name).parameters
    for key, value in given.items():
        if key not in defaults:
            raise ValueError(f"{kind}.{name}.{key}: unknown key; allowed: {', '.join(defaults) or 'none'}")
        if not _fits(value, defaults[key]):
            wanted = type(defaults[key]).__name__
            raise ValueError(f"{kind}.{name}.{key}: must be of type {wanted} (got {value!r})")
    return {
        key: float(value) if isinstance(value, float) or isinstance(default, float) else value
        for key, default in defaults.items()
        for value in [given.get(key, default)]
    }


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return type(value) is type(default)


@lru_cache(maxsize=256)
def _in_package(root: Path, kind: Kind, name: str) -> Path:
    """Where a plug-in of the package has to lie. Every row of a table asks."""
    return root / PACKAGES[kind].replace(".", "/") / f"{name}.py"


def _path(kind: Kind, name: str) -> Path:
    module, colon, attribute = name.partition(":")
    if not colon:
        path = _in_package(ROOT, kind, name)
        if not name.isidentifier() or name.startswith("_") or not is_file(path):
            raise HarnessError(f"unknown {kind} {name!r}; allowed: {', '.join(names(kind))}, or package.module:NAME")
        return path
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise HarnessError(f"unknown {kind} {name!r}; write package.module:NAME")
    relative = Path(*module.split("."))
    for entry in sys.path:
        for path in (Path(entry or ".") / relative.with_suffix(".py"), Path(entry or ".") / relative / "__init__.py"):
            if is_file(path):
                return path
    raise HarnessError(f"{kind} {name!r}: there is no module {module} on Python's path; set PYTHONPATH to its folder")


@dataclass(frozen=True)
class _Source:
    """What a file says of itself: its constants, the digest of its own code, and those of its imports that count."""

    constants: dict[str, Any]
    digest: str
    imports: tuple[Path, ...]


def _code(path: Path) -> str:
    """The digest of a file's code and of all that it imports from files that `_beside` finds, or that they do."""
    sources: dict[Path, _Source] = {}
    waiting = [path]
    while waiting:
        if (file := waiting.pop()) not in sources:
            sources[file] = _read(file)
            waiting += sources[file].imports
    own = sources.pop(path).digest
    others = [f"{file.parent.name}/{file.stem} {sources[file].digest}" for file in sorted(sources)]
    return hashlib.sha256("\n".join([own, *others]).encode()).hexdigest() if others else own


def _read(path: Path) -> _Source:
    stat = path.stat()
    return _parse(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _parse(path: Path, modified_ns: int, size: int) -> _Source:
    tree = ast.parse(read_text(path))
    constants = {}
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper() and getattr(statement, "value", None) is not None:
                try:
                    constants[target.id] = ast.literal_eval(statement.value)  # type: ignore[attr-defined]
                except ValueError:
                    continue  # a value that has to be computed is of no concern to planning
    imports = {file for node in ast.walk(tree) for module in _imported(node) for file in _beside(path, module)}
    return _Source(constants, source_digest(tree), tuple(sorted(file for file in imports - {path} if file.is_file())))


def _imported(node: ast.AST) -> Iterator[str]:
    """The modules that a statement imports, and the names that may be modules; relative ones without their dots."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = f"{node.module}." if node.module else ""
        yield from (node.module or "", *(package + alias.name for alias in node.names))


def _beside(path: Path, module: str) -> Iterator[Path]:
    """The file of an imported module, if it is in the same folder, or the shared code of a kind of plug-in."""
    *package, name = module.split(".")
    if not package or list(path.parent.parts[-len(package) :]) == package:
        yield path.with_name(f"{name}.py")
    if module in PACKAGES.values():
        yield ROOT.joinpath(*package, name, "__init__.py")


def source_digest(tree: ast.AST) -> str:
    """SHA-256 over what a syntax tree does: docstrings and positions are left out, and so is what is empty.

    Leaving out empty fields gives the same digest under every Python: newer ones only add optional fields.
    """
    hasher = hashlib.sha256()

    def walk(node: Any) -> None:
        if isinstance(node, ast.AST):
            hasher.update(f"({type(node).__name__}".encode())
            for name, value in ast.iter_fields(node):
                if name == "body" and isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                    value = value[1:]
                if isinstance(node, ast.JoinedStr):
                    # Python 3.12 adds empty strings to some.
                    value = [part for part in value if getattr(part, "value", None) != ""]
                if name not in ("kind", "type_comment", "type_ignores") and value not in (None, []):
                    hasher.update(f" {name}=".encode())
                    walk(value)
            hasher.update(b")")
        elif isinstance(node, list):
            for item in node:
                walk(item)
                hasher.update(b",")
        else:
            hasher.update(f"{type(node).__name__}:{node!r}".encode())

    walk(tree)
    return hasher.hexdigest()
