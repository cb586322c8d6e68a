"""What counts as a command that does not work: planted faults, typed for real."""

import sys
from pathlib import Path

import pytest

from tests.docs_commands import checkout, running
from tests.docs_commands.blocks import Command
from tests.docs_commands.checkout import Checkout, Outcome
from tests.docs_commands.running import allowed, counts, fault, type_all

PYTHON = f"'{sys.executable}'"
SHELL_FAULTS = {
    "false": "exit code 1",
    "no-such-program": "exit code 127",
    "echo $UNSET": "exit code 1",
    "false | cat": "exit code 1",
    f"{PYTHON} -c 'import no_such_module' || true": "prints a traceback",
    "sleep 60 & true": "leaves a process running",
}


def shown(text: str, *before: str) -> Command:
    return Command("page.md", 1, text, before)


@pytest.fixture
def here(tmp_path: Path) -> Checkout:
    (tmp_path / "checkout").mkdir()
    return Checkout(tmp_path / "checkout")


@pytest.mark.parametrize(("text", "found"), SHELL_FAULTS.items())
def test_a_command_that_does_not_work_is_a_fault(here: Checkout, text: str, found: str) -> None:
    assert fault(shown(text), here.type(shown(text))).startswith(f"{found}\n$ {text}\n")


def test_a_command_that_does_not_end_is_ended_and_a_fault(here: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "LONGEST_S", 0.5)
    assert fault(shown("sleep 60"), here.type(shown("sleep 60"))).startswith("exit code 124\n")


def test_a_command_is_typed_with_what_was_assigned_above_it(here: Checkout) -> None:
    command = shown("$R $A > said", "export A=1", "R='echo A is'")
    assert fault(command, here.type(command)) == ""
    assert (here.folder / "said").read_text() == "A is 1\n"


def test_what_this_process_was_told_does_not_reach_the_command(here: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "DATA_DIR", "MAKEFLAGS", "PROFILE", "HARNESS_REVISION"):
        monkeypatch.setenv(name, "ours")
    assert "ours" not in here.type(shown("env")).printed


def test_after_a_command_that_fails_the_others_of_its_page_are_not_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\nmake plan EXPERIMENT=none\nbin/harness --version\n```\n\n```sh\nray start\n```\n")
    first, second, third = type_all(page)
    assert "experiment 'none' does not exist" in first.fault
    assert second.fault == "not typed: page.md:2 make plan EXPERIMENT=none failed"
    assert (third.verdict.by, third.fault) == ("none", "")
    monkeypatch.setattr(running, "DOCUMENTS", [page])
    assert counts() == {"run": 0, "run_by_ci": 0, "failed": 2, "left_out": 1}


@pytest.mark.parametrize(
    ("text", "printed", "codes"),
    [
        ("make report", "error: chance-accuracy (1 row)\n", {0}),
        ("bin/harness latency a.onnx b.onnx", "", {0}),
        ("bin/harness latency a.onnx b.onnx --max-ratio 1.05", "", {0, 3}),
        ("make check", "", {0}),
        ("make check", "error: chance-accuracy (1 row)\n", {0, 1, 2}),
        ("make check", "error: chance-accuracy (1 row)\nerror: other-weights (2 rows)\n", {0}),
        ("make verify", "break: p0.3: the accuracy is chance (chance-accuracy)\n", {0, 1, 2}),
        ("make verify", "break: p0.3: the file is another one (onnx-hash)\n", {0}),
    ],
)
def test_another_exit_code_is_excused_only_where_the_page_says_so_or_by_noise(
    text: str, printed: str, codes: set[int]
) -> None:
    assert allowed(shown(text), printed) == codes
    assert bool(fault(shown(text), Outcome(2, printed))) == (2 not in codes)
