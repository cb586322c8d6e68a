"""One command of the harness as a process of its own: its output is shown as it runs, and it is stopped in time."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

# When its time is up a command gets SIGINT and saves its work, then SIGTERM, then SIGKILL: seconds before each.
PATIENCE_S = (0.0, 45.0, 10.0)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
LAST_WORDS = 12


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative after a signal), seconds, whether it was stopped, its last lines."""

    code: int
    seconds: float
    stopped: bool
    last_words: list[str]

    @property
    def outcome(self) -> Literal["done", "stopped", "failed"]:
        """In a word. A command that was stopped and exited cleanly has not failed."""
        return "stopped" if self.stopped else "done" if self.code == 0 else "failed"


@dataclass
class CommandRunner:
    """Runs commands one after the other; `stop` ends the present one, and no other may follow."""

    stopping: bool = False
    _process: subprocess.Popen[str] | None = field(default=None, init=False)

    def run(self, arguments: Sequence[str], limit_s: float) -> Ended:
        """`python -m harness ARGUMENTS`, for `limit_s` at most (and a little, to stop cleanly)."""
        started = time.monotonic()
        # A session of its own, so that it can be stopped with all that it started.
        with _receiving_sigint():
            process = subprocess.Popen(
                [sys.executable, "-m", "harness", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
                errors="replace",
            )
        self._process = process
        if self.stopping:
            self.stop()
        words: deque[str] = deque(maxlen=LAST_WORDS)
        over = threading.Event()
        thread = threading.Thread(target=_echo, args=(process, words, over), daemon=True)
        thread.start()
        stopped = not self._in_time(over, limit_s)
        thread.join()
        self._process = None
        return Ended(process.returncode, time.monotonic() - started, stopped or self.stopping, list(words))

    def _in_time(self, over: threading.Event, limit_s: float) -> bool:
        # Sleeps until something happens: what runs here may be measuring.
        if over.wait(None if limit_s == float("inf") else max(limit_s, 0.0)):
            return True
        for patience, number in zip(PATIENCE_S, SIGNALS, strict=True):
            if over.wait(patience):
                break
            self._signal(number)
        over.wait()
        return False

    def stop(self) -> None:
        """End what runs, and what would come after it."""
        self.stopping = True
        self._signal(signal.SIGINT)

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)


@contextlib.contextmanager
def _receiving_sigint() -> Iterator[None]:
    """Let what starts here receive SIGINT even where this process ignores it, as one that a script starts with `&`."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN or threading.current_thread() != threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _echo(process: subprocess.Popen[str], words: deque[str], over: threading.Event) -> None:
    assert process.stdout
    for line in process.stdout:
        print(line, end="")
        words.append(line.rstrip("\n"))
    process.wait()
    over.set()
