"""suite.json: how long the project's own tests take, in a fresh clone."""

from benchmarks import Figures
from benchmarks.user_commands import newcomer, seconds

GOALS = {"test_suite_s": "test", "test_docs_s": "test-docs"}


def measure() -> Figures:
    """Every figure, once everything is set up; prints each as it comes. HarnessError where a test fails."""
    figures: Figures = {}
    with newcomer() as (clone, environment):
        seconds(["make", "setup"], clone, environment)
        for name, goal in GOALS.items():
            figures[name] = seconds(["make", goal], clone, environment)
            print(f"{name}: {figures[name]:.1f}", flush=True)
    return figures
