"""Whether intervals hold what they say: how often they cover the truth in simulated runs, and how wide they are.

Noise is simulated as it was measured. The processes of one model lie within a percent of one another, more of them
above than below, but in the records under results/lite one in thirty is 20 to 60 % slower, since a neighbour was at
work all the time that it ran. Harder cases stand beside it. Every interval is the harness's own, computed by its own
functions.

`python -m benchmarks.interval_study` prints the figures and writes the tables of docs/estimators.md;
`python -m benchmarks.interval_study powers` prints the powers that harness.intervals has beside those that are needed.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student
from tabulate import tabulate

from benchmarks import ROOT, Figures, burst_study
from harness import intervals
from harness.bench.blocks import Settling, Subject
from harness.files import write_text
from harness.plan.loading import load_settings
from harness.reporting.markers import fill, read_document
from harness.store.records import Interval

Floats = npt.NDArray[Any]
DOCUMENT = Path("docs/estimators.md")
# How far one process is from another where nothing disturbs it, as a standard deviation, and how much slower those are
# that see nothing but a neighbour at work.
SPREAD, SLOWER = 0.003, (0.2, 0.6)
# The harness resamples more often, which takes longer and covers the same. Runs are simulated so many at once.
RESAMPLES, CHUNK = 99, 500
COUNTS = range(3, 31)
# The fewest blocks, and the precision (%) at which a run ends.
STOPPING = ((3, 10.0), (3, 1.0), (12, 0.3))
# Half a percent more than is promised, since the powers are themselves simulated.
AIM_PCT = intervals.CONFIDENCE_PCT + 0.5
SHOWN = (3, 4, 5, 6, 8, 12, 16, 20, 30)


def _bulk(random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return random.gamma(2.0, SPREAD / math.sqrt(2), shape)


def _slow(share: float, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Skewed noise, with this share of processes slow from beginning to end."""
    return _bulk(random, shape) + (random.random(shape) < share) * np.log1p(random.uniform(*SLOWER, shape))


# Logarithms of what processes take, by how disturbed they are; each call draws anew.
NOISES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Floats]] = {
    "even": lambda random, shape: SPREAD * random.standard_normal(shape),
    "measured": partial(_slow, 0.03),
    "disturbed": partial(_slow, 0.20),
    "long tails": lambda random, shape: SPREAD * random.standard_t(3, shape),
}


def interval_figures(draws: int = 2500, comparisons: int = 4000, processes: int = 300) -> Figures:
    """The figures of intervals and of the estimator, for right.json; also writes the tables of docs/estimators.md."""
    found, bursts = simulations(draws), burst_study.biases(processes)
    tables = {"intervals": table(found, draws), "bursts": burst_study.table(bursts)}
    text = fill(read_document(DOCUMENT), str(DOCUMENT), lambda marker: tables.get(marker.experiment))[0]
    write_text(DOCUMENT, text)
    latency_pct, ratio_pct = shown_changes_pct()
    return {
        "interval_coverage_pct_min": min(runs.coverage_pct for runs in found.values()),
        "interval_coverage_pct_min_plain_bootstrap": min(runs.lowered(1).coverage_pct for runs in found.values()),
        "interval_coverage_pct_min_when_stopped": min(stopped_coverages(draws).values()),
        "compare_false_alarm_pct": false_alarm_pct(comparisons),
        "compare_shows_latency_pct": latency_pct,
        "compare_shows_ratio_pct": ratio_pct,
        **burst_study.figures(bursts),
    }


# --- Coverage --------------------------------------------------------------------------------------------------------

KINDS = {
    "latency": (intervals.latency_bounds, intervals.LATENCY_POWERS),
    "ratio": (intervals.ratio_bounds, intervals.RATIO_POWERS),
}


@dataclass(frozen=True)
class Runs:
    """Many simulated runs: what was estimated in each, its interval, and the truth; arrays are [draws].

    `power` is what the percentile bootstrap was raised to. The truth is what infinitely many processes would give.
    """

    value: Floats
    low: Floats
    high: Floats
    power: float
    truth: float

    def lowered(self, power: float) -> "Runs":
        """The same runs with intervals of another power."""
        low, high = (self.value * (bound / self.value) ** (power / self.power) for bound in (self.low, self.high))
        return Runs(self.value, low, high, power, self.truth)

    @property
    def coverage_pct(self) -> float:
        """In how many of the runs the interval covers the truth."""
        return 100 * float(np.mean((self.low <= self.truth) & (self.truth <= self.high)))

    @property
    def halfwidth_pct(self) -> float:
        """The median of half the intervals' widths, in percent of the truth."""
        return 100 * float(np.median(self.high - self.low)) / 2 / self.truth

    def needed_power(self, coverage_pct: float) -> float:
        """The power with which this many of the intervals would cover the truth."""
        off = np.log(self.truth / self.value)
        reach = np.log(np.where(off > 0, self.high, self.low) / self.value) / self.power
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.percentile(np.where(off == 0, 0, off / reach), coverage_pct))


def simulated(kind: str, noise: str, count: int, draws: int) -> Runs:
    """Runs of so many processes per model, with the intervals that the harness gives them."""
    bounds, powers = KINDS[kind]
    random = np.random.default_rng([count, *noise.encode()])
    parts, truth = [], _truth(kind, noise)
    for _ in range(0, draws, CHUNK):
        rows = observed(random, kind, noise, count, min(CHUNK, draws))
        parts.append((_values(rows, kind), *bounds(rows, 0, RESAMPLES)))
    value, low, high = (np.concatenate(one).astype(np.float64) for one in zip(*parts, strict=True))
    return Runs(value, low, high, intervals.power_for(count, powers), truth)


def observed(random: np.random.Generator, kind: str, noise: str, count: int, draws: int) -> Floats:
    """What the processes of a model took in many runs, [draws, count]; of a model and its teacher, [draws, 2, count].

    Single precision is enough, and takes half the time.
    """
    shape = (draws, 2, count) if kind == "ratio" else (draws, count)
    return np.exp(NOISES[noise](random, shape)).astype(np.float32)


@cache
def _truth(kind: str, noise: str) -> float:
    if kind == "ratio":
        return 1.0
    return float(np.percentile(np.exp(NOISES[noise](np.random.default_rng(0), (2_000_000,))), intervals.OVER_PCT))


def _values(rows: Floats, kind: str) -> Floats:
    quartiles = np.percentile(rows, intervals.OVER_PCT, axis=-1)
    return np.asarray(quartiles[:, 0] / quartiles[:, 1] if kind == "ratio" else quartiles)


# kind of interval, noise, number of processes
Simulated = dict[tuple[str, str, int], Runs]


def simulations(draws: int, counts: range = COUNTS) -> Simulated:
    """Runs in every noise, of every number of processes from which an interval is given."""
    return {
        (kind, noise, count): simulated(kind, noise, count, draws)
        for kind, (_, powers) in KINDS.items()
        for noise in NOISES
        for count in counts
        if count >= min(powers)
    }


def needed_powers(draws: int) -> dict[str, dict[int, float]]:
    """The powers that give the coverage aimed at in the worst noise, by kind and number of processes."""
    return {
        kind: {
            count: max(simulated(kind, noise, count, draws).needed_power(AIM_PCT) for noise in NOISES)
            for count in COUNTS
        }
        for kind in KINDS
    }


def stopped_coverages(draws: int) -> dict[tuple[str, int, float], float]:
    """Coverage (%) where a run ends as the bench ends it: when the interval is narrow, which it may be by chance.

    By noise, the fewest blocks and the precision that is asked for (%); the time is up after 20 blocks.
    """
    bench, found = load_settings(ROOT / "matrix.toml", "full").bench, {}
    for noise in NOISES:
        rows = observed(np.random.default_rng(2), "ratio", noise, 20, draws)
        for blocks, precision_pct in STOPPING:
            settling = Settling.start(bench.model_copy(update={"blocks": blocks, "precision_pct": precision_pct}))
            subjects = [Subject(str(number), "") for number in range(draws)]
            covered, going = np.zeros(draws, dtype=bool), np.arange(draws)
            for count in range(blocks, 21):
                value = _values(rows[going, :, :count], "ratio")
                low, high = intervals.ratio_bounds(rows[going, :, :count], 0, RESAMPLES)
                ends = zip(going, value.tolist(), low.tolist(), high.tolist(), strict=True)
                known = {subjects[one]: Interval(value=at, low=least, high=most) for one, at, least, most in ends}
                settling.note(known, count)
                covered[going] = (low <= 1) & (high >= 1)
                going = going[[not settling.rests(subjects[one]) for one in going]]
            found[noise, blocks, precision_pct] = 100 * float(covered.mean())
    return found


# --- Against other intervals -----------------------------------------------------------------------------------------


def paired_t(noise: str, count: int, draws: int) -> Runs:
    """Student's interval of the mean logarithm of the ratios within blocks."""
    rows = observed(np.random.default_rng([count, *noise.encode()]), "ratio", noise, count, draws)
    logs = np.log(rows[:, 0] / rows[:, 1])
    middle, reach = logs.mean(axis=1), student.ppf(0.975, count - 1) * logs.std(axis=1, ddof=1) / math.sqrt(count)
    return Runs(np.exp(middle), np.exp(middle - reach), np.exp(middle + reach), 1.0, 1.0)


def table(found: Simulated, draws: int) -> str:
    """By number of blocks, the worst coverage of a ratio's interval and the median half-widths, as Markdown."""
    rows = []
    for count in SHOWN:
        ours = {noise: found["ratio", noise, count] for noise in NOISES}
        others = {noise: paired_t(noise, count, draws) for noise in NOISES}
        latency = [
            found["latency", noise, count].coverage_pct for noise in NOISES if ("latency", noise, count) in found
        ]
        figures = [
            min(runs.lowered(1).coverage_pct for runs in ours.values()),
            *(min(runs.coverage_pct for runs in by.values()) for by in (others, ours)),
        ]
        widths = [by[noise].halfwidth_pct for noise in ("measured", "disturbed") for by in (others, ours)]
        own = f"{min(latency):.1f}" if latency else "none given"
        rows.append([count, *(f"{one:.1f}" for one in figures), *(f"{one:.2f}" for one in widths), own])
    headers = [
        "Blocks",
        "Plain bootstrap covers (%)",
        "Paired t covers (%)",
        "Ours covers (%)",
        "Half of paired t (%)",
        "Half of ours (%)",
        "... of paired t, disturbed (%)",
        "... of ours, disturbed (%)",
        "A latency's own covers (%)",
    ]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=["right"] * len(headers))


# --- Comparing two runs ----------------------------------------------------------------------------------------------

CELLS, FIGURES_COMPARED = 20, 40
CONFIDENCE_PCT = 100 - (100 - intervals.CONFIDENCE_PCT) / FIGURES_COMPARED


def false_alarm_pct(draws: int, processes: int = 7) -> float:
    """How often a comparison of two runs of the same 20 models, two figures each, lists any change at all."""
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(draws):
        *models, teacher = _two_runs(random, CELLS + 1, processes)
        alarms += any(not found.covers(1) for model in models for found in _changes(model, teacher))
    return 100 * alarms / draws


def shown_changes_pct(processes: int = 12, draws: int = 2000) -> tuple[float, float]:
    """By how many percent a model must have become slower for four of five comparisons to list its latency, its ratio.

    Both ends of an interval grow with the model's latency, so the change that just shows follows from the lower end.
    """
    random = np.random.default_rng(1)
    found = [_changes(*_two_runs(random, 2, processes)) for _ in range(draws)]
    lows = np.asarray([[one.bounds[0] for one in changes if one.bounds] for changes in found])
    latency, ratio = (100 * (np.percentile(1 / lows, 80, axis=0) - 1)).tolist()
    return latency, ratio


# block -> what a model's process took, before and after
TwoRuns = tuple[dict[int, float], dict[int, float]]


def _two_runs(random: np.random.Generator, models: int, processes: int) -> list[TwoRuns]:
    took = np.exp(NOISES["measured"](random, (models, 2, processes))).tolist()
    return [(dict(enumerate(before)), dict(enumerate(after))) for before, after in took]


def _changes(model: TwoRuns, teacher: TwoRuns) -> list[Interval]:
    """Of the model's latency and of its ratio to the teacher, as among 40 figures."""
    (before, after), (earlier, later) = model, teacher
    latency = intervals.change_of_estimates(list(before.values()), list(after.values()), CONFIDENCE_PCT)
    ratio = intervals.change_of_ratios((before, earlier), (after, later), CONFIDENCE_PCT)
    assert ratio, "every block has both"
    return [latency, ratio]


if __name__ == "__main__":
    if sys.argv[1:] == ["powers"]:
        for name, needed in needed_powers(10_000).items():
            for processes, power in needed.items():
                has = intervals.power_for(processes, KINDS[name][1])
                print(f"{name}, {processes} processes: needs {power:.2f}, has {has:.2f}")
    else:
        for name, value in interval_figures().items():
            print(f"{name}: {value}")
