"""The commands of the documents, typed one after the other: what became of each."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.cli.test_transfer_verbs import NOISE
from tests.docs_commands.blocks import DOCUMENTS, Command, commands
from tests.docs_commands.checkout import Outcome, checkout
from tests.docs_commands.verdicts import Verdict, missing_engine, verdict

TOO_NOISY = 3


@dataclass(frozen=True)
class Done:
    """What became of a command: `fault` where it was typed and something is wrong with how it ended."""

    command: Command
    verdict: Verdict
    fault: str = ""


def judged(document: Path) -> list[tuple[Command, Verdict]]:
    """The commands of a document, each with its verdict. UnknownCommandError where one has none."""
    return [(command, verdict(command, engine())) for command in commands(document)]


def type_all(document: Path) -> Iterator[Done]:
    """Type those commands of a document that run here, in its order, in a checkout of its own.

    After one that fails, the others are not typed, since they may need what it should have made.
    """
    of_document = judged(document)
    if not any(found.by == "tests" for _, found in of_document):
        yield from (Done(command, found) for command, found in of_document)
        return
    broken = ""
    with checkout([command for command, found in of_document if found.by == "tests"]) as here:
        for command, found in of_document:
            if found.by != "tests":
                yield Done(command, found)
                continue
            problem = f"not typed: {broken} failed" if broken else fault(command, here.type(command))
            broken = broken or (str(command) if problem else "")
            yield Done(command, found, problem)


def fault(command: Command, outcome: Outcome) -> str:
    """What is wrong with how a command ended, with what it printed; empty if nothing."""
    said = f"$ {command.text}\n{outcome.printed}"
    if outcome.code not in allowed(command, outcome.printed):
        return f"exit code {outcome.code}\n{said}"
    if "Traceback (most recent call last)" in outcome.printed:
        return f"prints a traceback\n{said}"
    return f"leaves a process running\n{said}" if outcome.left else ""


def allowed(command: Command, printed: str) -> set[int]:
    """The exit codes that are no fault: 0, and those by which the documents say that the machine was too noisy."""
    words = command.words
    if "--max-ratio" in words or "--baseline" in words:
        return {0, TOO_NOISY}
    found = set(re.findall(r"^error: ([a-z-]+) \(\d+ row", printed, re.MULTILINE))
    found |= set(re.findall(r"^break: .*\(([a-z-]+)\)$", printed, re.MULTILINE))
    if {"check", "verify"} & set(words) and found and found <= set(NOISE):
        return {0, 1, 2}
    return {0}


@cache
def engine() -> str:
    """What is missing of an engine; asked once."""
    return missing_engine()


def counts() -> dict[str, int]:
    """How many commands all documents show: typed here without a fault or run by .ci/run, failed, and left out.

    Takes minutes, and prints those that were not run, and why.
    """
    done = [one for document in DOCUMENTS for one in type_all(document)]
    for one in done:
        if reason := one.fault or (one.verdict.reason if one.verdict.by == "none" else ""):
            print(f"{one.command}: {reason}", flush=True)
    return {
        "run": sum(one.verdict.by == "ci" or (one.verdict.by == "tests" and not one.fault) for one in done),
        "run_by_ci": sum(one.verdict.by == "ci" for one in done),
        "failed": sum(bool(one.fault) for one in done),
        "left_out": sum(one.verdict.by == "none" for one in done),
    }
