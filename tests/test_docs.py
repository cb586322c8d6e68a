"""README.md and the pages that it leads to: links, commands, sizes and tables."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import SUBJECTS
from benchmarks.estimator_study import CHOSEN
from harness import __version__
from harness.cli import VERBS, app
from harness.plan.loading import load_settings, profile_names
from harness.reporting.documents import WITHOUT_PLAN, own_documents
from harness.reporting.known_cpus import cpus_table
from harness.reporting.markers import find_markers
from harness.reporting.own_figures import BENCHMARKS
from tests.docs_commands import blocks
from tests.docs_commands.blocks import DOCUMENTS, FENCE, PAGES, README
from tests.documents import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
EACH_DOCUMENT = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def prose(document: Path) -> str:
    """A document without what it shows as code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", document.read_text(encoding="utf-8")))


def anchors(document: Path) -> set[str]:
    """The names that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(document: Path) -> Iterator[tuple[Path, str]]:
    """The files that a document links to, with the anchor."""
    for link in LINK.findall(prose(document)):
        if not re.match(r"[a-z]+:", link):
            place, _, anchor = link.partition("#")
            yield ((document.parent / place).resolve() if place else document), anchor


def commands(document: Path) -> Iterator[list[str]]:
    """The words of every command that a document shows, in a block or within a line."""
    yield from (command.words for command in blocks.commands(document))
    for line in re.findall(r"`([^`]+)`", FENCE.sub("", document.read_text(encoding="utf-8"))):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # an apostrophe: no command
            continue
        yield from (list(part) for between, part in groupby(words, ("&&", "|", ";").__contains__) if not between)


@cache
def options_of(verb: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", CliRunner().invoke(app, [*verb.split(), "--help"]).stdout))


VERB_NAMES = [verb.__name__.replace("_", "-") for verb in VERBS]


def wrong(words: list[str]) -> str | None:
    """What a command names that there is not."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, rest = (words[0], words[1:]) if words else ("", [])
    if program == "make":
        for word in rest:
            name, equals, value = word.partition("=")
            if not (name in TARGETS if not equals else re.search(rf"\$\({name}\)|^ifdef {name}$", MAKEFILE, re.M)):
                return word
            if name == "SUBJECT" and not set(value.split()) <= SUBJECTS.keys():
                return word
    if program in ("bin/harness", "harness"):
        verb = next((word for word in rest if not word.startswith("-")), "")
        if verb and verb not in VERB_NAMES:
            return verb
        known = options_of(verb)
        return next((word for word in rest if word.startswith("-") and word.partition("=")[0] not in known), None)
    return None


def dead_links(document: Path) -> list[str]:
    """Those that lead nowhere."""
    return [
        f"{target}#{anchor}"
        for target, anchor in links(document)
        if not target.exists() or (anchor and anchor not in anchors(target))
    ]


@EACH_DOCUMENT
def test_links_lead_somewhere(document: Path) -> None:
    assert dead_links(document) == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, ahead = {README}, [README]
    while ahead:
        new = {target for target, _ in links(ahead.pop()) if target.suffix == ".md" and target.exists()} - reached
        reached |= new
        ahead += new
    assert set(DOCUMENTS) - reached == set()


@EACH_DOCUMENT
def test_commands_name_targets_variables_verbs_and_options_that_exist(document: Path) -> None:
    assert [found for words in commands(document) if (found := wrong(words))] == []


def test_what_a_command_gets_wrong_is_noticed() -> None:
    for line, found in {
        "make train": "train",
        "make bench PROFIL=lite": "PROFIL=lite",
        "make benchmarks SUBJECT=mian": "SUBJECT=mian",
        "bin/harness measure": "measure",
        "X=1 bin/harness pack --halve": "--halve",
    }.items():
        assert wrong(line.split()) == found
    assert wrong(["make", "train-matrix", "bench", "PROFILE=lite"]) is None
    assert wrong(["bin/harness", "--version"]) is None


def test_the_readme_is_a_front_door() -> None:
    size = len(README.read_bytes())
    assert 6_000 <= size <= 8_000, f"README.md has {size} bytes"
    assert {"quickstart", "test"} <= {word for words in commands(README) if words[:1] == ["make"] for word in words[1:]}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_first_who_reads_it_and_what_it_answers(page: Path) -> None:
    title, first, *_ = page.read_text(encoding="utf-8").split("\n\n")
    assert title.startswith("# ") and first.startswith("You ")


def test_markers_name_tables_that_there_are() -> None:
    matrix = ROOT / "matrix.toml"
    experiments = {name: load_settings(matrix, name).experiments for name in profile_names(matrix)}
    markers = [
        marker for path in own_documents(ROOT) for marker in find_markers(path.read_text(encoding="utf-8"), path.name)
    ]
    assert [
        marker
        for marker in markers
        if marker.profile not in WITHOUT_PLAN and marker.experiment not in experiments[marker.profile]
    ] == []
    assert {marker.experiment for marker in markers if marker.profile == BENCHMARKS} <= SUBJECTS.keys()
    assert [marker.short for marker in find_markers(README.read_text(encoding="utf-8"), "README.md")] == [True]


def test_the_table_of_cpus_is_that_of_the_file() -> None:
    assert cpus_table() in (ROOT / "docs/target.md").read_text(encoding="utf-8"), "run: make report"


def test_the_readmes_figure_proves_its_sentence() -> None:
    rows = json.loads((ROOT / "results/benchmarks/estimators.json").read_text(encoding="utf-8"))
    both = ("rerun_disagreement_max_pct", "rerun_disagreement_max_pct_disturbed")
    (chosen,) = [row for row in rows if (row["within"], row["over"]) == CHOSEN]
    ours = [chosen[name] for name in both]
    means = [row[both[1]] for row in rows if row["within"] == "mean"]
    said = " ".join(README.read_text(encoding="utf-8").split())
    assert f"differs by {max(ours):.1f} % at most" in said
    assert f"differ by {min(means):.0f} to {max(means):.0f} %" in said


def test_every_file_gives_the_same_version() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == __version__
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0] == __version__
