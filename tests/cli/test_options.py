import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.cli.options import documents_of
from harness.commands import train_matrix
from harness.errors import HarnessError
from tests.documents import ROOT

OWN = [Path("README.md"), Path("docs/page.md")]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout, which is the working directory, with results of its own and others in it and beside it."""
    for name in ("checkout/results/lite", "checkout/scratch/results", "elsewhere/results"):
        (tmp_path / name).mkdir(parents=True)
    checkout = tmp_path / "checkout"
    (checkout / "docs").mkdir()
    for path in OWN:
        (checkout / path).write_text("# The checkout's\n")
    monkeypatch.chdir(checkout)
    return checkout


@pytest.mark.parametrize(
    "results", ["results", "./results/", "results/../results", "scratch/../results", "{here}/results"]
)
def test_the_checkouts_documents_are_filled_from_its_own_results_however_they_are_named(
    checkout: Path, results: str
) -> None:
    assert documents_of(None, Path(results.format(here=checkout))) == OWN


@pytest.mark.parametrize("results", ["../elsewhere/results", "scratch/results", "results/lite", "none", "."])
def test_figures_made_elsewhere_reach_no_document_unless_it_is_named(checkout: Path, results: str) -> None:
    assert documents_of(None, Path(results)) == []
    assert documents_of([Path("notes.md")], Path(results)) == [Path("notes.md")]


def test_results_that_are_linked_to_are_the_checkouts(checkout: Path) -> None:
    (checkout / "link").symlink_to("results")
    (checkout / "other").symlink_to("../elsewhere/results")
    assert documents_of(None, Path("link")) == OWN
    assert documents_of(None, Path("other")) == []


def test_a_checkout_without_a_readme_has_no_documents(checkout: Path) -> None:
    Path("README.md").unlink()
    assert documents_of(None, Path("results")) == []


# --- Where to train --------------------------------------------------------------------------------------------------


def refusal(*arguments: str, **environment: str) -> str:
    """What a command says that is refused."""
    where = ["--profile=quick", f"--matrix={ROOT / 'matrix.toml'}", "--results=r", "--artifacts=a"]
    done = CliRunner().invoke(app, [*arguments, *where], env={"EXECUTOR": None, "RUNNER": None, **environment})
    assert isinstance(done.exception, HarnessError)
    return str(done.exception)


@pytest.mark.parametrize("verb", ["bench", "results"])
@pytest.mark.usefixtures("checkout")
def test_nothing_is_measured_on_a_cluster_however_it_is_asked_for(verb: str) -> None:
    assert "never on a cluster" in refusal(verb, "--executor=ray")
    assert "never on a cluster" in refusal(verb, EXECUTOR="ray")


@pytest.mark.usefixtures("checkout")
def test_an_executor_that_does_not_exist_is_refused() -> None:
    assert refusal("train-matrix", "--executor=slurm") == "--executor slurm: unknown; allowed: local, ray"


@pytest.mark.usefixtures("checkout")
def test_a_cluster_is_not_inside_our_container() -> None:
    assert "leave RUNNER=docker out" in refusal("train-matrix", "--executor=ray", RUNNER="docker")


def test_where_ray_is_not_installed_the_message_says_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "harness.training.ray_tasks", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HarnessError, match="`make train-matrix EXECUTOR=ray` installs Ray"):
        train_matrix.ray_cluster("")
