import re
from pathlib import Path

import pytest

from tests.docs_commands.blocks import DOCUMENTS, OTHERS, SHELL, Block, blocks, commands, split
from tests.docs_commands.verdicts import PROGRAMS


def typed(text: str) -> list[str]:
    return [command.text for command in split(Block(SHELL, text, 10), "page.md")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("make plan\n\n# why\nmake bench   # and this\n", ["make plan", "make bench"]),
        ("make plan && make bench; make report\n", ["make plan", "make bench", "make report"]),
        ("docker run \\\n    image \\\n    latency\n", ["docker run image latency"]),
        ("$ make plan\n", ["make plan"]),
        ("A=1 B='x y' make plan\n", ["A=1 B='x y' make plan"]),
        ("make unpack FROM='a && b  # c'\n", ["make unpack FROM='a && b  # c'"]),
        ('run "a; \\" b" c\\;d x#y\n', ['run "a; \\" b" c\\;d x#y']),
        ("cat a | wc -l > b\n", ["cat a | wc -l > b"]),
        ("make plan", ["make plan"]),
        ("# nothing\n", []),
    ],
)
def test_a_block_is_split_as_a_shell_reads_it(text: str, found: list[str]) -> None:
    assert typed(text) == found


@pytest.mark.parametrize("text", ["make 'plan\n", 'make "plan\n'])
def test_what_no_shell_would_read_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="no shell command"):
        typed(text)


def test_a_command_knows_its_line_and_the_assignments_above_it() -> None:
    text = "export A=1 B=2\nR='bin/harness train'\n$R --seed 0 \\\n  --kd 1\n\nC=3 make plan PROFILE=lite\n"
    first, second = split(Block(SHELL, text, 10), "page.md")
    assert (str(first), first.words) == (
        "page.md:12 $R --seed 0 --kd 1",
        ["bin/harness", "train", "--seed", "0", "--kd", "1"],
    )
    assert first.before == second.before == ("export A=1 B=2", "R='bin/harness train'")
    assert (second.line, second.words) == (15, ["make", "plan", "PROFILE=lite"])
    assert second.variables == {"C": "3", "PROFILE": "lite"}


def test_blocks_of_every_kind_are_found_also_within_a_list() -> None:
    text = "a\n```sh\nmake plan\n```\n- b\n\n  ```text\n  ran\n  ```\n\n```\nc\n```\n"
    assert list(blocks(text)) == [("sh", "make plan\n", 3), ("text", "  ran\n", 8), ("", "c\n", 12)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_says_what_it_is_and_only_shell_blocks_hold_commands(document: Path) -> None:
    found = list(blocks(document.read_text(encoding="utf-8")))
    assert [block.line for block in found if block.kind not in {SHELL, *OTHERS}] == []
    shown = [line for block in found if block.kind == "text" for line in block.text.splitlines()]
    typed = re.compile(rf"[$%>] |({'|'.join(PROGRAMS)}) \S")
    assert [line for line in shown if typed.match(line)] == []


def test_documents_show_commands() -> None:
    assert sum(len(commands(document)) for document in DOCUMENTS) >= 40
