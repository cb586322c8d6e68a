"""Every command that README.md and the pages show in a block is typed, page by page, or says why it is not."""

from functools import cache
from pathlib import Path

import pytest

from tests.docs_commands.blocks import DOCUMENTS, Command, commands
from tests.docs_commands.running import Done, type_all
from tests.documents import ROOT

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venvs/bench-1.16.0/bin/python").is_file(), reason="no .venvs/bench-1.16.0: `make setup` makes it"
)
# Those of one page build on one another, so one process types them.
SHOWN = [
    pytest.param(document, command, id=str(command), marks=pytest.mark.xdist_group(str(document)))
    for document in DOCUMENTS
    for command in commands(document)
]


@cache
def done(document: Path) -> dict[Command, Done]:
    """The page's commands, typed once."""
    return {one.command: one for one in type_all(document)}


@pytest.mark.parametrize(("document", "command"), SHOWN)
def test_a_command_does_what_its_page_says(document: Path, command: Command) -> None:
    one = done(document)[command]
    if one.verdict.by != "tests":
        pytest.skip(f"a command of the documents: {one.verdict.reason}")
    assert not one.fault, one.fault
