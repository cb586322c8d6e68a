"""Runs that share a store: objects of one process here, and processes of their own where it is about a race."""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from harness.store import claims
from harness.store.claims import Claim, Run

UNIT = "0123abcd"
LEASE_S = 0.3


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease of a moment, in which a run renews its presence several times."""
    monkeypatch.setattr(claims, "BEAT_EVERY_S", LEASE_S / 6)
    monkeypatch.setattr(claims, "LEASE_S", LEASE_S)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[tuple[Run, Run]]:
    with Run(tmp_path) as one, Run(tmp_path) as other:
        yield one, other


def fall_silent(run: Run) -> None:
    """As if its process had been killed, or suspended: its presence is left as it is."""
    run._over.set()


def eventually(run: Run, unit: str, within_s: float = 20 * LEASE_S) -> tuple[Claim, float]:
    """The claim once it is granted, and how long that took."""
    began = time.monotonic()
    while time.monotonic() - began < within_s:
        if claim := run.claim(unit):
            return claim, time.monotonic() - began
        time.sleep(LEASE_S / 10)
    raise AssertionError("it was not granted")


def test_a_unit_is_held_by_one_run_and_others_are_free(runs: tuple[Run, Run]) -> None:
    one, other = runs
    held = one.claim(UNIT)
    assert held and held.stands()
    assert other.claim(UNIT) is None
    assert held.stands()
    assert other.claim("another") is not None


def test_a_run_that_renews_its_presence_keeps_its_units_for_any_length_of_time(runs: tuple[Run, Run]) -> None:
    one, other = runs
    held = one.claim(UNIT)
    until = time.monotonic() + 3 * LEASE_S
    while time.monotonic() < until:
        assert other.claim(UNIT) is None
        time.sleep(LEASE_S / 10)
    assert held and held.stands()


def test_the_units_of_a_silent_run_are_granted_after_the_lease_and_not_before(runs: tuple[Run, Run]) -> None:
    one, other = runs
    held = one.claim(UNIT)
    fall_silent(one)
    taken, after_s = eventually(other, UNIT)
    assert after_s > LEASE_S
    assert taken.stands() and held and not held.stands()


def test_a_run_found_dead_is_dead_for_all_of_its_units_and_for_everybody(runs: tuple[Run, Run]) -> None:
    one, other = runs
    assert one.claim("first") and one.claim("second")
    fall_silent(one)
    eventually(other, "first")
    assert other.claim("second")


def test_a_run_that_was_taken_for_dead_can_claim_again_but_not_what_was_taken(runs: tuple[Run, Run]) -> None:
    one, other = runs
    assert one.claim(UNIT)
    fall_silent(one)
    eventually(other, UNIT)
    one._over.clear()
    one._beat()
    assert one.claim(UNIT) is None
    assert one.claim("another")


def test_leaving_gives_up_everything_at_once(tmp_path: Path) -> None:
    with Run(tmp_path) as one:
        held = one.claim(UNIT)
    assert held and not held.stands()
    with Run(tmp_path) as other:
        assert other.claim(UNIT)


def test_another_attempt_of_the_same_run_ends_the_one_before(runs: tuple[Run, Run]) -> None:
    one, other = runs
    first, second = one.claim(UNIT), one.claim(UNIT)
    assert first and second and second.stands() and not first.stands()
    assert other.claim(UNIT) is None


def test_a_run_that_stops_keeps_its_units_until_its_workers_have_ended(runs: tuple[Run, Run]) -> None:
    one, other = runs
    held = one.claim(UNIT)
    one.stop()
    assert held and not held.stands()
    assert other.claim(UNIT) is None


def test_what_is_settled_leaves_nothing_and_can_be_claimed(runs: tuple[Run, Run]) -> None:
    one, other = runs
    assert one.claim(UNIT) and one.claim(UNIT)
    one.settle(UNIT)
    assert not [path for path in one.folder.iterdir() if path.name.startswith(UNIT)]
    assert other.claim(UNIT)


def test_who_comes_too_late_for_a_settled_unit_steps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It read a dead run's number; by the time that it creates the next, another run has made and settled the unit."""
    with Run(tmp_path) as dead:
        dead.claim(UNIT)
    with Run(tmp_path) as fast, Run(tmp_path) as slow, Run(tmp_path) as third:
        may_follow = slow._may_follow

        def meanwhile(last: Claim, holder: str | None) -> bool:
            granted = may_follow(last, holder)
            assert fast.claim(UNIT)
            fast.settle(UNIT)
            assert third.claim(UNIT)
            return granted

        monkeypatch.setattr(slow, "_may_follow", meanwhile)
        assert slow.claim(UNIT) is None
        assert third.claim(UNIT), "what the slow one created is gone"


def test_a_claim_that_was_created_but_not_written_is_somebodys(runs: tuple[Run, Run]) -> None:
    """Another process is between the two, or was killed there."""
    _, other = runs
    (other.folder / f"{UNIT}.1").touch()
    assert other.claim(UNIT) is None
    claim, after_s = eventually(other, UNIT)
    assert claim.number == 2 and after_s > LEASE_S


def test_a_jump_of_the_clock_changes_nothing(runs: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = runs
    held = one.claim(UNIT)
    assert other.claim(UNIT) is None
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert other.claim(UNIT) is None and held and held.stands()


def test_a_store_that_cannot_be_written_for_a_while_ends_no_run(
    runs: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = runs
    failed = threading.Event()

    def full(*_: object) -> None:
        failed.set()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(claims, "write_text", full)
        assert failed.wait(10)
    held = one.claim(UNIT)
    until = time.monotonic() + 2 * LEASE_S
    while time.monotonic() < until:
        assert other.claim(UNIT) is None
        time.sleep(LEASE_S / 10)
    assert held and held.stands()


def race(folder: Path, start: Barrier, units: int, won: Path) -> None:
    with Run(folder) as run, won.open("w") as file:
        start.wait()
        for number in range(units):
            if run.claim(f"unit{number}"):
                file.write(f"{number}\n")
        file.flush()
        start.wait()


def test_of_many_that_claim_at_the_same_moment_one_succeeds(tmp_path: Path) -> None:
    """Units that nobody has held, and units of a run that was stopped."""
    racers, units = 4, 60
    with ExitStack() as stack:
        run = stack.enter_context(Run(tmp_path / "claims"))
        assert all(run.claim(f"unit{number}") for number in range(0, units, 2))
    context = multiprocessing.get_context("fork")
    start = context.Barrier(racers)
    results = [tmp_path / f"won-{number}" for number in range(racers)]
    processes = [context.Process(target=race, args=(tmp_path / "claims", start, units, won)) for won in results]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    won = sorted(int(line) for path in results for line in path.read_text().splitlines())
    assert won == list(range(units))
