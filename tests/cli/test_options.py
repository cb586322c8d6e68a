from pathlib import Path

import pytest

from harness.cli.options import documents_of

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
