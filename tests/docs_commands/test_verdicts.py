from pathlib import Path

import pytest

from tests.docs_commands import verdicts
from tests.docs_commands.blocks import DOCUMENTS, Command, commands
from tests.docs_commands.verdicts import BY_CI, HERE, NO_CLUSTER, NO_ENGINE, NO_GPU, UnknownCommandError, verdict


def of(text: str, *before: str, engine: str = "") -> object:
    return verdict(Command("page.md", 1, text, before), engine)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
@pytest.mark.parametrize("engine", ["", NO_ENGINE], ids=["engine", "no engine"])
def test_every_command_has_a_verdict(document: Path, engine: str) -> None:
    found = [verdict(command, engine) for command in commands(document)]
    assert all(one.reason for one in found if one.by != "tests")


@pytest.mark.parametrize(
    "text",
    [
        "make setup",
        "make quickstart DATA_DIR=../datasets",
        "make train-matrix bench report PROFILE=lite",
        "bin/harness latency a.onnx b.onnx --json > old.json",
        "PYTHONPATH=.. make bench RUNNER=local",
    ],
)
def test_what_calls_the_harness_runs_here(text: str) -> None:
    assert of(text) == of(text, engine=NO_ENGINE) == HERE


@pytest.mark.parametrize("text", ["make images", "make bench RUNNER=docker", "docker run --rm image"])
def test_what_needs_an_engine_runs_where_there_is_one(text: str) -> None:
    assert of(text) == HERE
    assert of(text, engine=NO_ENGINE) == ("none", NO_ENGINE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("make benchmarks SUBJECT=gpu", NO_GPU),
        (".venvs/main/bin/python -m pytest tests/training/test_cuda.py", NO_GPU),
        ("ray start --head", NO_CLUSTER),
        ("bin/harness train-matrix --executor ray", NO_CLUSTER),
        ("make train-matrix EXECUTOR=ray", NO_CLUSTER),
    ],
)
def test_what_cannot_run_says_why(text: str, reason: str) -> None:
    assert of(text) == ("none", reason)


@pytest.mark.parametrize(
    "text",
    [
        "pip install x",
        ".venvs/main/bin/python -m pip install x",
        "curl x | sh",
        "bin/harness plan | rm -r results",
        "$R --cell x",
        "make",
        "make lock",
        "make plan lock",
        "make distclean",
        "make benchmarks",
        "make no-such-goal",
    ],
)
def test_a_command_that_no_rule_is_about_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(UnknownCommandError, match=r"^page.md:1 .*verdicts"):
        of(text)


def test_the_suite_itself_counts_as_run_only_where_ci_calls_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert of("make lint") == of("make test") == BY_CI
    monkeypatch.setattr(verdicts, "CI", tmp_path / "run")
    for script in ("# make test\n", "echo make test\n", "make tests\n", None):
        if script:
            (tmp_path / "run").write_text(script)
        else:
            (tmp_path / "run").unlink()
        with pytest.raises(UnknownCommandError):
            of("make test")
