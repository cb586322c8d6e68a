from pathlib import Path

import pytest

from harness.plan.loading import load_settings
from harness.plan.planning import make_plan
from tests.docs_commands.blocks import Command
from tests.docs_commands.checkout import PROFILES, checkout
from tests.documents import ROOT

MATRIX = (ROOT / "matrix.toml").read_bytes()


def shown(text: str) -> Command:
    return Command("page.md", 1, text)


def test_a_checkout_is_this_working_tree_in_small_with_nothing_to_set_up() -> None:
    with checkout([shown("make plan")]) as here:
        for name in ("Makefile", "harness/__init__.py", str(Path(__file__).relative_to(ROOT))):
            copied, original = here.folder / name, ROOT / name
            assert copied.read_bytes() == original.read_bytes()
            assert copied.stat().st_mtime == original.stat().st_mtime
        assert here.type(shown("make -n setup")).printed == "make: Nothing to be done for 'setup'.\n"
        for profile in PROFILES:
            plan = make_plan(load_settings(here.folder / "matrix.toml", profile), profile)
            assert 2 <= len(plan.cells) <= 3, profile
    assert not here.folder.exists()
    assert (ROOT / "matrix.toml").read_bytes() == MATRIX


@pytest.mark.parametrize(("text", "committed"), [("make check PROFILE=lite", True), ("make report", False)])
def test_commands_that_look_at_records_find_the_committed_ones_and_their_settings(text: str, committed: bool) -> None:
    with checkout([shown("bin/harness compare old/lite results/lite"), shown(text)]) as here:
        assert ((here.folder / "matrix.toml").read_bytes() == MATRIX) == committed
        assert here.data.exists() != committed
        assert (here.folder / "results/lite").is_dir()
