from typing import Any

import pytest

from harness.host.openings import openings
from tests.synthetic import CLOSED


def test_a_closed_container_has_no_openings() -> None:
    assert openings(CLOSED) == []


@pytest.mark.parametrize(
    ("fact", "value", "said"),
    [
        ("root", True, "it runs as root"),
        ("capabilities", ["net_raw", "chown"], "it has capabilities: net_raw, chown"),
        ("no_new_privileges", False, "it may gain privileges"),
        ("read_only_root", False, "its root file system can be written to"),
        ("interfaces", ["eth0"], "it has a network: eth0"),
        ("engine_sockets", ["/run/docker.sock"], "the engine's socket is in it: /run/docker.sock"),
        ("writable_models", ["/a/model.onnx"], "models can be written to: /a/model.onnx"),
        ("writable_elsewhere", ["/home"], "more than the result folders can be written to: /home"),
        ("cpus", [0, 1, 2], "it may use CPUs 0,1,2, not the chosen 0,1"),
        ("memory_bytes", None, "its memory limit is None bytes, not 4294967296"),
    ],
)
def test_every_opening_is_named(fact: str, value: Any, said: str) -> None:
    assert openings({**CLOSED, fact: value}) == [said]


@pytest.mark.parametrize("fact", CLOSED)
def test_a_fact_that_is_missing_is_not_taken_for_closed(fact: str) -> None:
    left = {name: value for name, value in CLOSED.items() if name != fact}
    assert openings(left) == [f"{fact} is not on record"]


def test_facts_are_held_against_what_was_asked_for() -> None:
    assert len(openings({**CLOSED, "asked": {}})) == 2
