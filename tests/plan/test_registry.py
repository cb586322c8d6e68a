import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.plan import registry
from harness.plan.planning import make_plan
from harness.plan.registry import PACKAGES, Kind, find, names, source_digest
from tests.documents import ROOT, Load, put

KINDS: tuple[Kind, ...] = get_args(Kind)
PLUGINS = [(kind, name) for kind in KINDS for name in names(kind)]
FILES = {f"{kind} {name}": find(kind, name).path for kind, name in PLUGINS}
GRAM = find("method", "gram").path.read_text(encoding="utf-8")
External = Callable[[str, str], str]


def digest_of(source: str) -> str:
    return source_digest(ast.parse(source))


@pytest.fixture
def external(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> External:
    """Writes a module of the user's onto Python's path and gives the name of the plug-in PLUGIN in it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(module: str, source: str) -> str:
        # Another test may have imported a module of this name.
        monkeypatch.delitem(sys.modules, module, raising=False)
        path = tmp_path / Path(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
        return f"{module}:PLUGIN"

    return write


# --- What there is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_plug_ins_are_the_files_of_their_folder_without_an_underscore(kind: Kind) -> None:
    folder = ROOT / PACKAGES[kind].replace(".", "/")
    assert names(kind) == sorted(path.stem for path in folder.iterdir() if re.fullmatch(r"[a-z].*\.py", path.name))
    assert names(kind)


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_every_plug_in_of_the_package_has_a_title_and_a_digest(kind: Kind, name: str) -> None:
    plugin = find(kind, name)
    assert plugin.constants["TITLE"] == plugin.title != ""
    assert re.fullmatch("[0-9a-f]{64}", plugin.digest)
    assert plugin.label == name


@pytest.mark.parametrize(("kind", "name"), [one for one in PLUGINS if one[0] != "engine"])
def test_every_plug_in_of_the_package_can_be_loaded(kind: Kind, name: str) -> None:
    """An engine can be loaded in its own environment only."""
    assert registry.load(kind, name) is getattr(sys.modules[f"{PACKAGES[kind]}.{name}"], kind.upper())


def test_no_two_plug_ins_have_one_digest() -> None:
    assert len({find(kind, name).digest for kind, name in PLUGINS}) == len(PLUGINS)


# --- Read without being run ------------------------------------------------------------------------------------------


def test_constants_are_those_with_literal_values_in_capitals(external: External) -> None:
    source = """
import os
TITLE: str = "Mine"
PARAMETERS = {"alpha": 0.5, "steps": 3, "name": "x", "on": True}
USES = ("base",)
LATER: int
COMPUTED = len(os.sep)
lower = 1
ONE = OTHER = 7
"""
    plugin = find("method", external("mine", source))
    assert plugin.constants == {
        "TITLE": "Mine",
        "PARAMETERS": {"alpha": 0.5, "steps": 3, "name": "x", "on": True},
        "USES": ("base",),
        "ONE": 7,
        "OTHER": 7,
    }
    assert (plugin.title, plugin.label, plugin.parameters["steps"]) == ("Mine", "plugin", 3)


def test_a_plug_in_without_constants_is_called_by_its_name_and_has_no_parameters(external: External) -> None:
    plugin = find("criterion", external("mine", "PLUGIN = object()"))
    assert (plugin.title, dict(plugin.parameters)) == ("PLUGIN", {})


def test_a_plug_in_that_cannot_even_be_imported_is_planned(
    load: Load, document: dict[str, Any], external: External
) -> None:
    name = external("broken", 'TITLE = "Broken"\nFEATURES = True\nraise RuntimeError("not in this environment")')
    put(document, "experiment.0.kd_method", [name])
    cells = make_plan(load(document), "long", experiments=["prune-0.3"]).cells[1:]
    assert [cell.id for cell in cells] == ["p0.3-l1-plugin-s0", "p0.3-bn-plugin-s0", "p0.3-gn-plugin-s0"]
    assert all(cell.student.objective.features == "sum" for cell in cells)
    with pytest.raises(RuntimeError, match="not in this environment"):
        registry.load("method", name)


def test_planning_with_every_plug_in_imports_none_of_them_and_no_heavy_library() -> None:
    code = (
        "import sys; from harness.plan.registry import PACKAGES, names, find;"
        "from harness.plan import planning, loading;"
        "[find(kind, name) for kind in PACKAGES for name in names(kind)];"
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime', 'scipy'};"
        "print({m for m in sys.modules if m in heavy or m.startswith(tuple(PACKAGES.values()))})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_file_that_has_been_edited_is_read_anew(external: External) -> None:
    name = external("mine", "ALPHA = 1")
    before = find("method", name)
    digest = before.digest
    external("mine", "ALPHA = 2.5")
    after = find("method", name)
    assert (before.constants["ALPHA"], after.constants["ALPHA"]) == (1, 2.5)
    assert digest != after.digest


@pytest.mark.parametrize("edited", ["helper", "deeper"])
def test_code_that_a_plug_in_takes_from_files_beside_it_counts_as_its_own(external: External, edited: str) -> None:
    sources = {"helper": "from deeper import A\nB = 1", "deeper": "A = 1", "unrelated": "C = 1"}
    for name, source in sources.items():
        external(name, source)
    name = external("mine", "from helper import B\nPLUGIN = object()")
    before = find("method", name).digest
    external("unrelated", "C = 2")
    external(edited, sources[edited] + "  # a remark")
    assert find("method", name).digest == before
    external(edited, sources[edited].replace("= 1", "= 10"))
    assert find("method", name).digest != before


def test_what_a_kind_of_plug_in_shares_counts_as_the_code_of_each() -> None:
    shared = {path.parent.name for path in registry._read(find("criterion", "l1").path).imports}
    assert shared == {"pruning"}
    assert "_resnet" in {path.stem for path in registry._read(find("architecture", "resnet50").path).imports}


@pytest.mark.parametrize("source", ["def broken(:", "\0"])
def test_a_file_that_is_not_python_is_named(external: External, tmp_path: Path, source: str) -> None:
    name = external("mine", source)
    with pytest.raises(HarnessError, match=rf"method 'mine:PLUGIN': {tmp_path}/mine\.py cannot be read: "):
        find("method", name)


# --- Digests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_comments_and_formatting_do_not_count(name: str) -> None:
    source = FILES[name].read_text(encoding="utf-8")
    plain = ast.unparse(ast.parse(source))
    assert plain != source
    assert digest_of(plain) == digest_of(source)
    assert digest_of("# A comment.\n\n" + plain.replace("\n", "\n\n") + "\n# Another.\n") == digest_of(source)


def test_docstrings_do_not_count_but_other_strings_do() -> None:
    bare = "def f():\n    return 'x'\nclass C:\n    y = 1\n    async def g(self):\n        return 2"
    said = (
        "'''Module.'''\ndef f():\n    'Function.'\n    return 'x'\n"
        "class C:\n    '''Class.'''\n    y = 1\n    async def g(self):\n        'Method.'\n        return 2"
    )
    assert digest_of(said) == digest_of(bare)
    assert digest_of(said.replace("Function", "Changed")) == digest_of(bare)
    assert digest_of(bare.replace("'x'", "'y'")) != digest_of(bare)
    # a string that is no docstring is a statement of the user's
    assert digest_of("x = 1\n'a'") != digest_of("x = 1\n'b'")


def mutants(source: str) -> Iterator[str]:
    """The source with one number, text or operator changed, for every one there is outside docstrings."""
    tree = ast.parse(source)
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in statements:
            before = node.value
            node.value = f"{before}x" if isinstance(before, str) else not before if before in (True, False) else 0.123
            yield ast.unparse(tree)
            node.value = before
        elif isinstance(node, ast.BinOp):
            operator = node.op
            node.op = ast.Mod()
            yield ast.unparse(tree)
            node.op = operator


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("method", "criterion"))])
def test_any_changed_constant_or_operator_counts(name: str) -> None:
    source = FILES[name].read_text(encoding="utf-8")
    changed = [digest_of(mutant) for mutant in mutants(source)]
    assert changed
    assert digest_of(source) not in changed


def test_a_loss_times_ten_counts() -> None:
    assert GRAM.count("return scale * sum(") == 1
    assert digest_of(GRAM.replace("return scale * sum(", "return 10 * scale * sum(")) != digest_of(GRAM)


@given(
    one=st.recursive(st.integers() | st.text(max_size=3) | st.floats(allow_nan=False), st.lists, max_leaves=5),
    other=st.recursive(st.integers() | st.text(max_size=3) | st.floats(allow_nan=False), st.lists, max_leaves=5),
)
def test_two_values_have_one_digest_only_if_they_are_written_alike(one: Any, other: Any) -> None:
    assert (digest_of(f"X = {one!r}") == digest_of(f"X = {other!r}")) == (repr(one) == repr(other))


PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
# Every Python of this machine that the project supports; pyenv's shims only stand in for one.
PYTHONS = {
    version: path
    for version in ("3.11", "3.12", "3.13", "3.14")
    for path in [
        *(Path(folder) / f"python{version}" for folder in os.get_exec_path() if Path(folder).name != "shims"),
        *sorted(PYENV.glob(f"versions/{version}.*/bin/python")),
    ]
    if path.is_file()
}


# Most of what Python can say, so that a Python with another syntax tree for it is noticed.
SAMPLE = """
from __future__ import annotations
import a.b as c
from . import d
X = {"a": [1, -2.5, None, True, ..., 1j, b"x", 10**20], "b": (*(), *[]), **{}}
Y: int | None = 3 if not X else ~4
@d(1, *X, k=2, **Y)
async def f(x, /, y=1, *args: int, z=(w := 2), **more) -> str:
    "Doc."
    global Y
    async with a as b, c: await d
    async for i, (j, *k) in f(): continue
    return f"{x!r:>{y}} {y:.2f} {{}} {z}" 'and' f"{w=}" if x < y <= z is not None else x[1:2, ::3] @ y**2
class C(d.E, metaclass=M):
    "Doc."
    @property
    def g(self): yield from (lambda q, *, r=0: q)(1)
    h = [i for i in range(3) if i if not i for j in {k: v for k, v in ()}]
try:
    del X[0], Y
    assert X, "message"
except* (A, B) as e:
    raise C from e
else:
    while True: break
finally:
    match X:
        case {"a": [1, *rest], **others} | C(1, k=None) if rest: pass
        case (-1 | "s" as t): X += 1
        case _: pass
"""


@pytest.mark.parametrize("version", PYTHONS)
def test_every_python_gives_the_same_digests(version: str) -> None:
    code = (
        "import ast, sys; from harness.plan.registry import PACKAGES, find, names, source_digest;"
        "[print(kind, name, find(kind, name).digest) for kind in PACKAGES for name in names(kind)];"
        "print(source_digest(ast.parse(sys.argv[1])))"
    )
    command = [str(PYTHONS[version]), "-c", code, SAMPLE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    here = [f"{kind} {name} {find(kind, name).digest}" for kind, name in PLUGINS]
    assert done.stdout.splitlines() == [*here, digest_of(SAMPLE)]


def test_the_form_that_is_hashed_is_fixed() -> None:
    """Digests on record have to stay comparable: this value may never change."""
    assert digest_of(SAMPLE)[:16] == "954f18d26ae45285"


# --- Code that a plug-in shares --------------------------------------------------------------------------------------


def write(folder: Path, files: dict[str, str]) -> None:
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")


@pytest.mark.parametrize(
    "statement",
    [
        "from mine._losses import loss",
        "from ._losses import loss",
        "from . import _losses",
        "from mine import _losses",
        "import mine._losses",
        "def later():\n    from mine._losses import loss",
    ],
)
def test_a_file_beside_a_plug_in_counts_however_it_is_imported(
    external: External, tmp_path: Path, statement: str
) -> None:
    write(tmp_path, {"mine/kd.py": f"{statement}\nPLUGIN = 1", "mine/_losses.py": "def loss(x): return x"})
    before = find("method", "mine.kd:PLUGIN").digest
    write(tmp_path, {"mine/_losses.py": "def loss(x): return 10 * x"})
    assert find("method", "mine.kd:PLUGIN").digest != before


@pytest.mark.parametrize(
    ("edited", "counts"),
    [
        ("mine/kd.py", True),
        ("mine/_losses.py", True),
        ("mine/_norms.py", True),
        ("mine/unrelated.py", False),
        ("other/library.py", False),
    ],
)
def test_files_beside_a_plug_in_count_if_it_imports_them_or_they_do(
    external: External, tmp_path: Path, edited: str, counts: bool
) -> None:
    write(
        tmp_path,
        {
            "mine/kd.py": "from mine._losses import loss\nfrom other.library import x\nPLUGIN = loss",
            "mine/_losses.py": "from ._norms import norm\ndef loss(x): return norm(x)",
            "mine/_norms.py": "from mine._losses import loss\ndef norm(x): return x",
            "mine/unrelated.py": "y = 1",
            "other/library.py": "x = 1",
        },
    )
    before = find("method", "mine.kd:PLUGIN").digest
    path = tmp_path / edited
    path.write_text(f"# Only a comment.\n{path.read_text()}")
    assert find("method", "mine.kd:PLUGIN").digest == before
    path.write_text(f"{path.read_text()}\nMORE = 1")
    assert (find("method", "mine.kd:PLUGIN").digest != before) == counts


def test_the_shared_code_of_a_kind_counts_for_the_plug_ins_that_import_it(
    external: External, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a copy of the package, where it can be edited."""
    package = Path("harness/compression/distillation")
    shutil.copytree(ROOT / package, tmp_path / "copy" / package)
    monkeypatch.setattr(registry, "ROOT", tmp_path / "copy")
    importing = external("one", f"from {PACKAGES['method']} import Method\nPLUGIN = Method")
    alone = external("two", "PLUGIN = 1")
    plugins = [*names("method"), importing, alone]
    before = {name: find("method", name).digest for name in plugins}
    shared = tmp_path / "copy" / package / "__init__.py"
    shared.write_text(shared.read_text(encoding="utf-8") + "\nMORE = 1\n", encoding="utf-8")
    after = {name: find("method", name).digest for name in plugins}
    assert {name for name in plugins if before[name] != after[name]} == {*names("method"), importing}


def test_networks_of_a_family_count_their_familys_code() -> None:
    """Without it, a change of the blocks of a ResNet would leave every ResNet's digest as it was."""
    for name in ("resnet18", "resnet50"):
        plugin = find("architecture", name)
        assert plugin.digest != digest_of(plugin.path.read_text(encoding="utf-8"))


# --- Plug-ins elsewhere ----------------------------------------------------------------------------------------------


def test_a_plug_in_may_lie_anywhere_on_pythons_path(tmp_path: Path) -> None:
    """As a user has it: the module's folder in PYTHONPATH, its name in matrix.toml."""
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "mine" / "deep" / "__init__.py").write_text("TITLE = 'Mine'\nHERE = [1]\n")
    code = (
        "from harness.plan.registry import find, load;"
        "print(find('criterion', 'mine.deep:HERE').title, load('criterion', 'mine.deep:HERE'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "Mine [1]"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("l2", r"unknown criterion 'l2'; allowed: bn, gn, l1, random, or package\.module:NAME"),
        ("_base", r"unknown criterion '_base'; allowed: bn"),
        ("__init__", r"unknown criterion '__init__'; allowed: bn"),
        ("../plan/settings", r"unknown criterion '\.\./plan/settings'; allowed: bn"),
        ("", r"unknown criterion ''; allowed: bn"),
        ("a-b:NAME", r"unknown criterion 'a-b:NAME'; write package\.module:NAME"),
        ("a:", r"unknown criterion 'a:'; write package\.module:NAME"),
        ("..a:NAME", r"unknown criterion '\.\.a:NAME'; write package\.module:NAME"),
        ("no.such.module:NAME", r"there is no module no\.such\.module on Python's path; set PYTHONPATH"),
    ],
)
def test_an_unknown_name_says_what_is_allowed(name: str, message: str) -> None:
    for use in (find, registry.load):
        with pytest.raises(HarnessError, match=message):
            use("criterion", name)


def test_a_module_without_the_object_is_named(external: External) -> None:
    name = external("mine", "x = 1")
    with pytest.raises(HarnessError, match=r"method 'mine:PLUGIN': mine does not provide PLUGIN: "):
        registry.load("method", name)


def test_a_plug_in_that_leaves_a_method_out_is_named_before_it_is_used(external: External) -> None:
    name = external("mine", "from harness.datasets import Dataset\nclass Half(Dataset):\n    pass\nPLUGIN = Half()")
    with pytest.raises(HarnessError, match=r"PLUGIN: Can't instantiate abstract class Half .*find"):
        registry.load("dataset", name)


def test_an_object_of_another_type_is_named(external: External) -> None:
    name = external("mine", "PLUGIN = 'text'")
    assert registry.load("method", name, str) == "text"
    with pytest.raises(
        HarnessError, match=r"method 'mine:PLUGIN': PLUGIN in mine is no int, which a plug-in has to be"
    ):
        registry.load("method", name, int)


def test_a_module_with_a_missing_import_is_named(external: External) -> None:
    name = external("mine", "import no_such_library\nPLUGIN = 1")
    with pytest.raises(HarnessError, match="mine does not provide PLUGIN: No module named 'no_such_library'"):
        registry.load("method", name)


# --- Parameters ------------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(external: External) -> str:
    return external("mine", "PARAMETERS = {'alpha': 0.5, 'steps': 3, 'name': 'x', 'on': True, 'sizes': [1]}")


def test_defaults_hold_where_nothing_is_given(mine: str) -> None:
    assert registry.resolve("method", mine, {}) == {"alpha": 0.5, "steps": 3, "name": "x", "on": True, "sizes": [1]}


def test_what_is_given_is_laid_over_the_defaults_and_whole_numbers_become_fractions(mine: str) -> None:
    found = registry.resolve("method", mine, {"alpha": 2, "on": False})
    assert found == {"alpha": 2.0, "steps": 3, "name": "x", "on": False, "sizes": [1]}
    assert isinstance(found["alpha"], float)


@pytest.mark.parametrize(
    ("given_parameters", "message"),
    [
        ({"beta": 1}, r"method\.mine:PLUGIN\.beta: unknown key; allowed: alpha, steps, name, on, sizes"),
        ({"alpha": "0.5"}, r"method\.mine:PLUGIN\.alpha: must be of type float \(got '0\.5'\)"),
        ({"alpha": True}, r"alpha: must be of type float \(got True\)"),
        ({"alpha": float("inf")}, r"alpha: must be of type float \(got inf\)"),
        ({"alpha": float("nan")}, r"alpha: must be of type float \(got nan\)"),
        ({"alpha": [0.5]}, "alpha: must be of type float"),
        ({"steps": 3.0}, r"steps: must be of type int \(got 3\.0\)"),
        ({"steps": True}, r"steps: must be of type int \(got True\)"),
        ({"name": 1}, r"name: must be of type str \(got 1\)"),
        ({"on": 1}, r"on: must be of type bool \(got 1\)"),
        ({"sizes": 1}, r"sizes: must be of type list \(got 1\)"),
    ],
)
def test_an_unknown_parameter_or_a_wrong_type_is_refused(
    mine: str, given_parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        registry.resolve("method", mine, given_parameters)


def test_a_plug_in_without_parameters_takes_none() -> None:
    with pytest.raises(ValueError, match=r"criterion\.l1\.alpha: unknown key; allowed: none"):
        registry.resolve("criterion", "l1", {"alpha": 1.0})
