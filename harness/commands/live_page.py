"""The report's page while models are still being made: rewritten now and then, so that it shows what is finished."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.commands.scope import Scope

# The share of a run's time that may go into the page, and the seconds that one rewriting is taken to need.
SHARE, COST_S = 0.01, 5.0
# After that something is wrong, and the models are what matters.
PATIENCE_S = 60.0


@dataclass
class LivePage:
    """Rewrites the page of a scope's profile when that is worth it.

    A process of its own does the work: whatever goes wrong in it is said, and costs no model.
    """

    scope: Scope
    say: Callable[[str], None] = print
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _spent_s: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def cell_done(self) -> None:
        """Rewrite the page, unless too much of the time went into that already."""
        if self._spent_s + COST_S <= self._allowed_s:
            self._rewrite()

    def ended(self) -> None:
        """Rewrite the page at the end of a long run. After a short one the report is not far."""
        if self._allowed_s >= COST_S:
            self._rewrite()

    @property
    def _allowed_s(self) -> float:
        return SHARE * (self.clock() - self._began)

    def _rewrite(self) -> None:
        paths, started = self.scope.paths, self.clock()
        command = [sys.executable, "-m", "harness", "report", "--page-only", "--profile", self.scope.profile]
        command += ["--matrix", str(self.scope.matrix), "--results", str(paths.results)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
        except (OSError, subprocess.SubprocessError) as error:
            words = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            self.say(f"The page of the report was not rewritten: {words[-1] if words else 'no reason given'}")
        self._spent_s += self.clock() - started
