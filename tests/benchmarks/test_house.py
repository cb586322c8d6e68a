from pathlib import Path

import grimp
import pytest

from benchmarks.house import cycles, lines_of, outside_layers, same_named
from harness.errors import HarnessError

CONTRACT = """
[[tool.importlinter.contracts]]
name = "layers"
type = "layers"
layers = ["cli", "left | right", "core"]

[[tool.importlinter.contracts]]
name = "another"
type = "forbidden"
source_modules = ["spare"]
"""


def test_a_module_that_no_layer_names_is_outside() -> None:
    assert outside_layers(CONTRACT, ["cli", "left", "right", "core"]) == set()
    assert outside_layers(CONTRACT, ["cli", "right", "spare"]) == {"spare"}


def test_modules_of_one_name_are_found_wherever_they_are() -> None:
    sources = ["a/__init__.py", "a/__main__.py", "a/run.py", "a/b/__init__.py", "c/__init__.py", "c/__main__.py"]
    assert same_named(map(Path, sources)) == []
    assert same_named(map(Path, [*sources, "c/run.py"])) == ["run"]
    assert same_named(map(Path, [*sources, "c/b.py"])) == ["b"]


def graph(**imports: str) -> grimp.ImportGraph:
    found = grimp.ImportGraph()
    for module in imports:
        found.add_module(module)
    for module, others in imports.items():
        for other in others.split():
            found.add_import(importer=module, imported=other)
    return found


def test_a_chain_of_imports_is_no_cycle() -> None:
    assert cycles(graph(a="b c", b="c", c="")) == []


def test_two_modules_that_import_each_other_are_a_cycle() -> None:
    assert cycles(graph(a="b", b="a c", c="")) == [{"a", "b"}]


def test_longer_cycles_that_touch_are_counted_once() -> None:
    assert cycles(graph(a="b", b="c", c="a d", d="c", e="f", f="e a")) == [{"a", "b", "c", "d"}, {"e", "f"}]


def test_lines_of_a_revision_are_those_of_its_python_files() -> None:
    # what `git show` says of that revision is known for good
    assert lines_of("8b8f6c0", "harness/errors.py") == 9
    assert lines_of("8b8f6c0", "harness/reporting/published.csv") == 0


def test_an_unknown_revision_is_an_error() -> None:
    with pytest.raises(HarnessError, match=r"git ls-tree .* no-such-revision; this needs a full clone"):
        lines_of("no-such-revision", "harness")
