"""Which of the documents' commands run here: rules, by what a command calls. One that no rule knows is an error."""

import os
import re
from typing import Literal, NamedTuple

from harness.containers.docker_engine import ContainerError, connect
from harness.containers.images import CPU, GPU, present
from tests.docs_commands.blocks import Command
from tests.documents import ROOT

CI = ROOT / ".ci/run"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# Goals that would start the very tests that ask.
SUITE = {"test", "test-docs", "lint"}
# What the documents call; a line of theirs that starts with one of these is a command.
PROGRAMS = ("make", "bin/harness", "docker", "ray")
# What a program or an option stands for that this machine alone does not have.
NO_GPU = "needs a GPU"
NO_ENGINE = "needs a Docker engine with both images"
NO_CLUSTER = "needs several machines (make benchmarks SUBJECT=ray starts a cluster on one)"


class UnknownCommandError(Exception):
    """Nobody has said yet whether such a command can run in CI."""


class Verdict(NamedTuple):
    """Run by the tests of this folder, run by .ci/run as it stands in the document, or left out for a reason."""

    by: Literal["tests", "ci", "none"]
    reason: str = ""


HERE, BY_CI = Verdict("tests"), Verdict("ci", f"{CI.relative_to(ROOT)} runs it")


def verdict(command: Command, engine: str = "") -> Verdict:
    """What becomes of a command where `engine` says what is missing of a Docker engine with both images, if anything.

    UnknownCommandError where no rule is about it.
    """
    program, *rest = command.words
    options = {word.rpartition("=")[2] for word in rest}
    found: Verdict | None = None
    if {"|", "||", "&"} & set(rest):
        pass  # one rule, one program
    elif program == "ray" or (program in ("make", "bin/harness") and "ray" in options):
        found = Verdict("none", NO_CLUSTER)
    elif program == "docker":
        found = Verdict("none", engine) if engine else HERE
    elif program == "bin/harness":
        found = HERE
    elif program == "make":
        found = _of_make(command, {word for word in rest if "=" not in word}, engine)
    elif program.endswith("python") and any("cuda" in word for word in rest):
        found = Verdict("none", NO_GPU)
    if found is None:
        raise UnknownCommandError(f"{command}: say in {__name__} whether it can run in CI, or why not")
    return found


def _of_make(command: Command, goals: set[str], engine: str) -> Verdict | None:
    if command.text in by_ci() and goals <= SUITE:
        return BY_CI
    if command.variables.get("SUBJECT") == "gpu":
        return Verdict("none", NO_GPU)
    if engine and ("images" in goals or command.variables.get("RUNNER") == "docker"):
        return Verdict("none", engine)
    return HERE if goals and goals <= harmless_goals() else None


def harmless_goals() -> set[str]:
    """The goals that call the harness, and the one that makes its environments: in a scratch checkout any may run."""
    rules = re.findall(r"^([a-z-]+):[^\n]*\n((?:\t[^\n]*\n)*)", MAKEFILE, re.MULTILINE)
    return {"setup", *(goal for goal, recipe in rules if "$(HARNESS)" in recipe)}


def by_ci() -> set[str]:
    """The commands that .ci/run calls on lines of their own, whatever the machine is like."""
    script = CI.read_text(encoding="utf-8") if CI.is_file() else ""
    return set(re.findall(r"^(make [a-z-]+)(?: &)?$", script, re.MULTILINE))


def missing_engine() -> str:
    """Why no command can run in a container here; empty where an engine answers and has both images as they are now."""
    if os.environ.get("NO_ENGINE"):
        return NO_ENGINE
    try:
        client = connect()
        for image in (CPU, GPU):
            present(client, image)
    except ContainerError as error:
        if error.kind in ("engine-absent", "engine-unusable", "missing-image"):
            return NO_ENGINE
        raise
    return ""
