"""Who makes what, where several runs share one store: leases that a dead run cannot leave stale.

A run is present through a file that it rewrites every few seconds. It claims a unit of work by creating the unit's next
numbered file, exclusively; the highest number holds the unit. A run may create the next number only where the holder's
presence is gone, or has not changed for the length of a lease by this host's own monotonic clock. No two clocks are
compared, no lock of the file system is relied on, and nothing is left for anybody to clean up by hand.

What is guaranteed: of runs that renew their presence within the lease, no two hold the same unit. A run that was silent
for longer (suspended, or cut off from the store) may lose its units to another. Its workers notice within CHECK_EVERY_S
that a higher number exists, and stop; only what such a worker happens to commit within these seconds may be made twice,
and then each file is still whole, because files are replaced atomically.

A unit's numbers are removed, by the run that holds it, when all that it wanted is on record. So whoever claims a unit
looks at its records once more, after the claim and before making anything.
"""

import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from harness.errors import HarnessError
from harness.files import write_text

# How often a run renews its presence, after how long a silent one counts as dead, and how often a worker asks whether
# its claim still stands; in seconds.
BEAT_EVERY_S = 5.0
LEASE_S = 30.0
CHECK_EVERY_S = 2.0
STOPPING = "stopping"


@dataclass(frozen=True)
class Claim:
    """A unit that a run holds, in a form that can be sent to the worker that makes it."""

    folder: Path
    unit: str
    number: int
    run: str

    @property
    def path(self) -> Path:
        """The numbered file."""
        return self.folder / f"{self.unit}.{self.number}"

    def in_sight(self) -> bool:
        """Whether this process sees the folder of the claim, where its run is at work; waits for a beat or two."""
        until = time.monotonic() + 2 * BEAT_EVERY_S
        while _read(_presence(self.folder, self.run)) is None:
            if time.monotonic() > until:
                return False
            time.sleep(BEAT_EVERY_S / 10)
        return True

    def stands(self) -> bool:
        """Whether work may go on: nobody has claimed the unit since, and the run is neither gone nor stopping."""
        try:
            held = max(_numbers(self.folder, self.unit), default=0) == self.number
            presence = _read(_presence(self.folder, self.run))
            return held and presence is not None and not presence.endswith(STOPPING)
        except OSError:
            # The store cannot be reached: nothing can be committed either, and it may come back.
            return True


class Run:
    """This process among the runs that share a folder of claims; present for as long as the context is open.

    Leaving it gives up every claim, so by then whatever works under one has to have ended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = uuid.uuid4().hex
        self._beats = 0
        self._stopping = False
        self._over = threading.Event()
        self._writing = threading.Lock()
        # run or file -> what was read last, and since when it has been the same
        self._seen: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> "Run":
        self._beat()
        threading.Thread(target=self._keep_beating, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with self._writing:
            _presence(self.folder, self.id).unlink(missing_ok=True)

    def stop(self) -> None:
        """Have every worker under one of this run's claims stop after its next step; the claims are kept."""
        if not self._stopping:
            self._stopping = True
            self._beat()

    def claim(self, unit: str) -> Claim | None:
        """Hold the unit from now on; None where another run does. `unit` may have no dot in it.

        A unit that this run holds already is claimed anew: the worker of the earlier claim will stop.
        """
        last = max(_numbers(self.folder, unit), default=0)
        before, claim = (Claim(self.folder, unit, number, self.id) for number in (last, last + 1))
        holder = _read(before.path)
        if last and not self._may_follow(before, holder):
            return None
        try:
            with claim.path.open("x", encoding="utf-8") as file:
                file.write(self.id)
        except FileExistsError:
            return None
        if max(_numbers(self.folder, unit), default=0) != claim.number or _read(before.path) != holder:
            # It was settled, and perhaps claimed anew, since the numbers were read.
            claim.path.unlink(missing_ok=True)
            return None
        return claim

    def settle(self, unit: str) -> None:
        """Remove the claims of a unit that this run holds: all that it wanted of it is on record."""
        # lowest first: whoever sees the one gone that it meant to follow knows that it has come too late
        for number in _numbers(self.folder, unit):
            (self.folder / f"{unit}.{number}").unlink(missing_ok=True)

    def _may_follow(self, last: Claim, holder: str | None) -> bool:
        """Whether the run that holds this number is another attempt of this one, or dead."""
        if holder is None or holder == self.id:
            return holder == self.id
        if not holder:
            # created in this moment, and not written to yet; or never to be
            return self._silent(last.path.name, holder)
        presence = _presence(self.folder, holder)
        text = _read(presence)
        if text is not None and self._silent(holder, text):
            # Others need not wait as well. Should it be alive after all, its next beat brings it back.
            presence.unlink(missing_ok=True)
            return True
        return text is None

    def _silent(self, name: str, text: str) -> bool:
        """Whether this text has been the same for the length of a lease."""
        seen, since = self._seen.get(name, (None, 0.0))
        if text != seen:
            self._seen[name] = (text, time.monotonic())
            return False
        return time.monotonic() - since > LEASE_S

    def _keep_beating(self) -> None:
        while not self._over.wait(BEAT_EVERY_S):
            # What keeps it from writing may pass; if it does not, others take over.
            with suppress(OSError, HarnessError):
                self._beat()

    def _beat(self) -> None:
        with self._writing:
            if not self._over.is_set():
                self._beats += 1
                write_text(
                    _presence(self.folder, self.id), f"{self._beats} {STOPPING if self._stopping else 'at work'}"
                )


def _presence(folder: Path, run: str) -> Path:
    return folder / f"run-{run}"


def _read(path: Path) -> str | None:
    """What a file says; None where it is not there."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _numbers(folder: Path, unit: str) -> list[int]:
    """The numbers of a unit's claims. Listing the folder, unlike asking for a file, is not answered from a cache."""
    found = (path.name.rpartition(".") for path in folder.iterdir())
    return sorted(int(number) for name, _, number in found if name == unit and number.isdigit())
