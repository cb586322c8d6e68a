"""How far bursts of a neighbour move the ratio of two models that take 7 to 30 ms: simulated, for other estimators too.

At 15 ms a process sees some sixty inferences in the time in which a thin model sees thousands, and a burst is not much
longer than an inference. A short model then finds an undisturbed moment more easily than its teacher, which favours it.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from benchmarks import Figures
from harness.intervals import OVER_PCT, undisturbed
from harness.plan.bench_settings import Bench

Floats = npt.NDArray[np.float64]
SAMPLING_S, ROUNDS, WARMUP_ROUNDS, WARMUP_S = (
    Bench.model_fields[name].default for name in ("sampling_s", "rounds", "warmup_rounds", "warmup_s")
)
BLOCKS = 12
# How much longer everything takes while the neighbour works, and the standard deviation from one inference to the next:
# the median is then 1 % above the 1st percentile, as in the records under results/lite.
SLOWDOWN, JITTER = 1.6, 0.01
# Mean lengths (s) of exponentially distributed bursts and of the gaps between them, from those of
# benchmarks/disturbance.py down to interruptions of a millisecond.
BURSTS = [(0.4, 0.8), (0.8, 0.4), (0.1, 0.1), (0.06, 0.03), (0.04, 0.02), (0.03, 0.01), (0.01, 0.01), (0.001, 0.01)]
# Here the teacher hardly ever finds a gap that is long enough: nothing that it does is undisturbed.
WORST = (0.02, 0.005)
# Latencies (s) of a student and its teacher.
AT_15_MS, AT_30_MS = [(0.0074, 0.0155), (0.011, 0.0155)], [(0.015, 0.030), (0.021, 0.030)]
ESTIMATORS: dict[str, Callable[[Floats], float]] = {
    "mean": lambda samples: float(samples.mean()),
    "median": lambda samples: float(np.median(samples)),
    "10th percentile": lambda samples: float(np.percentile(samples, 10)),
    "1st percentile, interpolated": lambda samples: float(np.percentile(samples, 1)),
    "1st percentile, nearest rank": lambda samples: undisturbed(samples.tolist()),
    "minimum": lambda samples: float(samples.min()),
}
CHOSEN = "1st percentile, nearest rank"
# estimator -> (student and teacher, burst and gap) -> bias of the ratio (%)
Biases = dict[str, dict[tuple[tuple[float, float], tuple[float, float]], float]]


def biases(processes: int, runs: int = 2000) -> Biases:
    """How far the mean ratio over many runs is from the true one, for every estimator, pair of models and rhythm."""
    found: Biases = {name: {} for name in ESTIMATORS}
    random = np.random.default_rng(0)
    for rhythm in [*BURSTS, WORST]:
        for models in AT_15_MS + AT_30_MS:
            sampled = [[process(random, takes_s, *rhythm) for _ in range(processes)] for takes_s in models]
            picks = random.integers(0, processes, (2, runs, BLOCKS))
            for name, of in ESTIMATORS.items():
                observed = [np.asarray([of(samples) for samples in one]) for one in sampled]
                student, teacher = (
                    np.percentile(one[chosen], OVER_PCT, axis=1) for one, chosen in zip(observed, picks, strict=True)
                )
                found[name][models, rhythm] = 100 * (float((student / teacher).mean()) - 1)
    return found


def process(random: np.random.Generator, takes_s: float, burst_s: float, gap_s: float) -> Floats:
    """What the inferences of one process take, divided by what an undisturbed one takes.

    Work is done at full speed in gaps and slower in bursts. So time follows from work by a piecewise linear function,
    and inferences are equal steps of work but for their jitter.
    """
    most = math.ceil(max(ROUNDS, SAMPLING_S / takes_s)) + WARMUP_ROUNDS + math.ceil(WARMUP_S / takes_s)
    work = np.concatenate([[0.0], np.cumsum(takes_s * (1 + random.gamma(2.0, JITTER / math.sqrt(2), most)))])
    # bursts and gaps in turn, twice as many as there is work for on average, and a gap first or a burst
    turns = 2 * math.ceil(work[-1] * SLOWDOWN / (burst_s + gap_s) + 10)
    bursts = (np.arange(2 * turns) + (random.random() < burst_s / (burst_s + gap_s))) % 2 == 1
    lasts = random.exponential(np.where(bursts, burst_s, gap_s))
    done = np.concatenate([[0.0], np.cumsum(lasts / np.where(bursts, SLOWDOWN, 1.0))])
    took = np.diff(np.interp(work, done, np.concatenate([[0.0], np.cumsum(lasts)])))
    warm = max(WARMUP_ROUNDS, int(np.searchsorted(np.cumsum(took), WARMUP_S)))
    rounds = max(ROUNDS, math.ceil(SAMPLING_S / float(np.median(took[:warm]))))
    return np.asarray(took[warm : warm + rounds] / takes_s)


def figures(found: Biases) -> Figures:
    """The largest bias of the bench's own estimator, in either direction."""
    ours = found[CHOSEN]

    def largest(models: list[tuple[float, float]], rhythms: list[tuple[float, float]]) -> float:
        return max(abs(ours[pair, rhythm]) for pair in models for rhythm in rhythms)

    return {
        "estimator_bias_pct_max_at_15ms": largest(AT_15_MS, BURSTS),
        "estimator_bias_pct_max_at_30ms": largest(AT_30_MS, BURSTS),
        "estimator_bias_pct_without_gaps": largest(AT_15_MS + AT_30_MS, [WORST]),
    }


def table(found: Biases) -> str:
    """By estimator of a process and rhythm, the bias of the ratio that is furthest off, as Markdown."""
    rhythms = [*BURSTS, WORST]
    rows = []
    for name, by in found.items():
        used = "**" if name == CHOSEN else ""
        worst = [max((by[pair, rhythm] for pair in AT_15_MS + AT_30_MS), key=abs) for rhythm in rhythms]
        rows.append([f"{used}{name}{used}", *(f"{used}{one:+.2f}{used}" for one in worst)])
    headers = ["Of a process", *(f"{1000 * burst:g} / {1000 * gap:g}" for burst, gap in rhythms)]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=["left", *["right"] * len(rhythms)])
