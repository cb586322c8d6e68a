import ast
from pathlib import Path

import pytest

from tests.survival.inventory import KINDS

TESTS = Path(__file__).parents[1]


def test_every_kind_that_was_filed_is_listed() -> None:
    assert sorted(KINDS) == list(range(1, 47))
    assert len({name for name, _ in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize("number", KINDS)
def test_the_tests_of_a_kind_are_there(number: int) -> None:
    name, tests = KINDS[number]
    assert tests, name
    for test in tests:
        file, _, function = test.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, test
