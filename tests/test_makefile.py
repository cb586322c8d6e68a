import re
import subprocess

from harness.cli import VERBS
from tests.documents import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def phony() -> set[str]:
    return set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())


def test_help_lists_every_target() -> None:
    listed = set(re.findall(r"^  ([a-z-]+) ", make("help").stdout, re.MULTILINE))
    assert listed == phony()


def test_the_readme_names_targets_that_exist() -> None:
    named = set(re.findall(r"`make ([a-z-]+)", README))
    assert named <= phony() and {"quickstart", "test", "train-matrix", "bench", "report"} <= named


def test_every_verb_that_make_calls_exists() -> None:
    called = set(re.findall(r"\$\(HARNESS\) ([a-z-]+)", MAKEFILE))
    assert called <= {verb.__name__.replace("_", "-") for verb in VERBS}


def test_an_unusable_python_is_one_clear_line() -> None:
    done = make("-B", ".venvs/uv/.made", "PYTHON=/bin/false", "-n")
    assert "Python 3.11 or newer is needed" in done.stdout
