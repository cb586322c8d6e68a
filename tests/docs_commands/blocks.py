"""What README.md and the pages it leads to show in fenced blocks, and the shell commands among that."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.reporting.documents import own_documents
from tests.documents import ROOT

README = ROOT / "README.md"
PAGES = [path for path in own_documents(ROOT) if path != README]
DOCUMENTS = [README, *PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]

SHELL = "sh"
# What else a block may be: output and listings, settings, code, drawings. None of it is a command.
OTHERS = {"text", "markdown", "mermaid", "python", "toml", "yaml"}
FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)

# A word as the shell reads it, with its quotes; what separates commands; a comment; a line that goes on.
TOKEN = re.compile(
    r"""(?P<word>(?:\\(?!\n).|'[^']*'|"(?:\\.|[^"\\])*"|[^\s\\'";&|\#]|(?<=[^\s;&|])\#)+)
      | (?P<end>&&|\n|;) | (?P<pipe>\|\|?|&) | (?P<comment>\#[^\n]*) | (?P<space>\\\n|[^\S\n]+)""",
    re.VERBOSE,
)
PROMPT = re.compile(r"^[$%>] ", re.MULTILINE)
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


class Block(NamedTuple):
    """A fenced block: its kind, its text, and the line of the document on which the text begins."""

    kind: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command as it is typed, and the assignments (`R=...`, `export X=...`) above it in its block."""

    document: str
    line: int
    text: str
    before: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.document}:{self.line} {self.text}"

    @property
    def words(self) -> list[str]:
        """Program and arguments, without quotes and what is assigned; a program named by a variable is looked up."""
        words = _unassigned(shlex.split(self.text))
        known = dict(word.split("=", 1) for line in self.before for word in shlex.split(line) if ASSIGNMENT.match(word))
        if words and words[0].startswith("$") and words[0][1:] in known:
            words = [*shlex.split(known[words[0][1:]]), *words[1:]]
        return words

    @property
    def variables(self) -> dict[str, str]:
        """What is assigned for this command alone, before it or, to make, behind it."""
        return dict(word.split("=", 1) for word in shlex.split(self.text) if ASSIGNMENT.match(word))


def blocks(text: str) -> Iterator[Block]:
    """All fenced blocks of a document."""
    for found in FENCE.finditer(text):
        yield Block(found["kind"].strip(), found["text"], text[: found.start("text")].count("\n") + 1)


def commands(document: Path) -> list[Command]:
    """The commands that a document's shell blocks show, in their order."""
    name = document.relative_to(ROOT).as_posix() if document.is_relative_to(ROOT) else document.name
    text = document.read_text(encoding="utf-8")
    return [command for block in blocks(text) if block.kind == SHELL for command in split(block, name)]


def split(block: Block, document: str) -> list[Command]:
    """The commands of a shell block. ValueError where it holds what a shell would not read either."""
    found: list[Command] = []
    before: list[str] = []
    for line, text in _parts(PROMPT.sub("", block.text)):
        if text.startswith("export ") or not _unassigned(shlex.split(text)):
            before.append(text)
        else:
            found.append(Command(document, block.line + line, text, tuple(before)))
    return found


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """What stands between `&&`, `;` and ends of lines, without comments and on one line each, with its line from 0."""
    place, line, start, part = 0, 0, 0, ""
    while place < len(text):
        token = TOKEN.match(text, place)
        if token is None:
            raise ValueError(f"line {line + 1}: no shell command: {text[place:].splitlines()[0]}")
        if token["end"]:
            if part.strip():
                yield start, part.strip()
            part = ""
        elif token["space"]:
            part = part and part.rstrip() + " "
        elif not token["comment"]:
            start = start if part else line
            part += token[0]
        line += token[0].count("\n")
        place = token.end()
    if part.strip():
        yield start, part.strip()


def _unassigned(words: list[str]) -> list[str]:
    while words and ASSIGNMENT.match(words[0]):
        words = words[1:]
    return words
