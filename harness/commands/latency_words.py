"""What `harness latency` says: a table for each condition, what to be wary of, and one sentence to repeat."""

from collections.abc import Sequence

from tabulate import tabulate

from harness.commands.latency_document import ConditionFound, FileFound, LatencyDocument, Timing, Verdict
from harness.plan.cpu_table import whose_instruction_set
from harness.store.records import Interval

SAID: dict[Verdict, str] = {
    "beyond": "beyond the limit",
    "within": "not beyond the limit",
    "unclear": "too noisy to say",
}


def sentence(document: LatencyDocument) -> str:
    """Like "b.onnx is 1.31 times as fast as a.onnx [1.29, 1.33], 1 thread, onnxruntime 1.16.0, on ..."."""
    first, *others = document.files
    timing = first.timings[0]
    if others:
        *parts, last = [_compared(one, first) for one in others]
        said = f"{', '.join(parts)} and {last}" if parts else last
    else:
        took = timing.latency_ms
        assert took, "a document has its first file measured"
        said = f"{first.title} takes {_in_brackets(took.value, 'ms', took.bounds, 3)}"
    doubt = "" if document.settled else f" (not settled to ±{document.precision_pct:g} %)"
    place = [*_condition(document.conditions[0]), f"on {document.machine['cpu']}"]
    return f"{said}{doubt}, {', '.join(place)}"


def _compared(one: FileFound, first: FileFound) -> str:
    timing = one.timings[0]
    if timing.ratio is None:
        return f"{one.title} could not be measured"
    ratio, noise = timing.ratio, _off(first.timings[0])
    if is_same(ratio, noise):
        return f"{one.title} and {first.title} cannot be told apart (ratio {_interval(ratio, 3)})"
    if ratio.value > 1:
        return f"{one.title} takes {_in_brackets(ratio.value, f'times as long as {first.title}', ratio.bounds, 2)}"
    speeds = (1 / ratio.bounds[1], 1 / ratio.bounds[0]) if ratio.bounds else None
    return f"{one.title} is {_in_brackets(1 / ratio.value, f'times as fast as {first.title}', speeds, 2)}"


def _in_brackets(value: float, words: str, bounds: tuple[float, float] | None, digits: int) -> str:
    said = ", ".join(f"{bound:.{digits}f}" for bound in bounds) if bounds else "too few processes"
    return f"{value:.{digits}f} {words} [{said}]"


def is_same(ratio: Interval, noise: float) -> bool:
    """Whether no difference was shown: the interval covers 1, or the first file differs as much from itself."""
    return ratio.covers(1) or abs(ratio.value - 1) <= noise


def _off(timing: Timing) -> float:
    return abs(timing.again_ratio.value - 1) if timing.again_ratio else 0.0


def as_text(document: LatencyDocument) -> str:
    """All that a person reads; the sentence is the last line."""
    parts = []
    for place, condition in enumerate(document.conditions):
        parts.append(f"{', '.join(_condition(condition))}\n{_table(document, place)}")
    inputs = [f"{title}: {', '.join(one)}" for title, one in _inputs(document.files)]
    parts.append("\n".join([*(f"inputs of {line}" for line in inputs), f"drawn with seed {document.seed}"]))
    notes = [*(f"warning: {text}" for text in document.warnings), *_notes(document)]
    if notes:
        parts.append("\n".join(notes))
    if gate := document.gate:
        limit = f"{gate.max_ratio:g} times {'the baseline' if gate.against == 'baseline' else document.files[0].title}"
        parts.append("\n".join(f"{title}: {SAID[found]} ({limit})" for title, found in gate.verdicts.items()))
    return "\n\n".join([*parts, document.sentence])


def _inputs(files: Sequence[FileFound]) -> list[tuple[str, list[str]]]:
    """The inputs in words; files with the same inputs share a line."""
    lines: dict[str, list[str]] = {}
    for file in files:
        words = ", ".join(f"{one.name} {one.dtype} {one.shape}" for one in file.inputs)
        lines.setdefault(words, []).append(file.title)
    if len(lines) == 1:
        return [("all files", list(lines))]
    return [(", ".join(titles), [words]) for words, titles in lines.items()]


def _table(document: LatencyDocument, place: int) -> str:
    noise = _off(document.files[0].timings[place])
    several = len(document.files) > 1
    rows = []
    for number, file in enumerate(document.files):
        timing = file.timings[place]
        rows.append(_row(file, timing, noise, several))
        if number == 0 and timing.again_ratio:
            rows.append([f"{file.title}, again", "", _interval(timing.again_ratio, 3)])
    headers = ["File", "Latency (ms) [95 %]"]
    headers += [f"Ratio to {document.files[0].title} [95 %]"] if several else []
    headers += ["Since baseline"] if any(file.timings[place].change for file in document.files) else []
    headers += ["Median (ms)", "Parameters", "Size"]
    return tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * (len(headers) - 1)))


def _row(file: FileFound, timing: Timing, noise: float, several: bool) -> list[str]:
    row = [file.title, _interval(timing.latency_ms, 3) if timing.latency_ms else "failed"]
    if several:
        same = "≈ " if timing.ratio and timing.ratio.value != 1 and is_same(timing.ratio, noise) else ""
        row.append(same + _interval(timing.ratio, 3) if timing.ratio else "-")
    if timing.change:
        row.append(_interval(timing.change, 3))
    median = f"{timing.median_ms:.3f}" if timing.median_ms is not None else "-"
    return [*row, median, _scaled(file.params), f"{_scaled(file.size_bytes)}B"]


def _notes(document: LatencyDocument) -> list[str]:
    """What is to be said about single files: failures, and warnings, those of several conditions once."""
    notes = []
    for file in document.files:
        for timing in file.timings:
            if timing.failure:
                notes.append(f"failed: {file.title}: {timing.failure.message} ({timing.failure.kind})")
            notes += [f"warning: {file.title}: {text}" for text in timing.warnings]
    return list(dict.fromkeys(notes))


def _scaled(number: int) -> str:
    """Three digits with the unit that suits them: 314, 23.7 M."""
    for unit, word in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {word}"
    return f"{number} "


def _interval(found: Interval, digits: int) -> str:
    return found.text(f".{digits}f")


def _condition(condition: ConditionFound) -> list[str]:
    target = [whose_instruction_set(condition.target)] if condition.target else []
    return [f"{condition.threads} thread{'' if condition.threads == 1 else 's'}", condition.runtime, *target]
