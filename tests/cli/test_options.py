from pathlib import Path

import pytest

from harness.cli.options import readme_to_fill

OWN = Path("README.md")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout, which is the working directory, with results of its own and others in it and beside it."""
    for name in ("checkout/results/lite", "checkout/scratch/results", "elsewhere/results"):
        (tmp_path / name).mkdir(parents=True)
    checkout = tmp_path / "checkout"
    (checkout / "README.md").write_text("# The checkout's\n")
    monkeypatch.chdir(checkout)
    return checkout


@pytest.mark.parametrize(
    "results", ["results", "./results/", "results/../results", "scratch/../results", "{here}/results"]
)
def test_the_checkouts_readme_is_filled_from_its_own_results_however_they_are_named(
    checkout: Path, results: str
) -> None:
    assert readme_to_fill(None, Path(results.format(here=checkout))) == OWN


@pytest.mark.parametrize("results", ["../elsewhere/results", "scratch/results", "results/lite", "none", "."])
def test_figures_made_elsewhere_reach_no_readme_unless_it_is_named(checkout: Path, results: str) -> None:
    assert readme_to_fill(None, Path(results)) is None
    assert readme_to_fill(Path("notes.md"), Path(results)) == Path("notes.md")


def test_results_that_are_linked_to_are_the_checkouts(checkout: Path) -> None:
    (checkout / "link").symlink_to("results")
    (checkout / "other").symlink_to("../elsewhere/results")
    assert readme_to_fill(None, Path("link")) == OWN
    assert readme_to_fill(None, Path("other")) is None


def test_a_checkout_without_a_readme_has_none_to_fill(checkout: Path) -> None:
    OWN.unlink()
    assert readme_to_fill(None, Path("results")) is None
