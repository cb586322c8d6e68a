"""Takes another machine's records into this results folder: what fits here and is not already better known.

Everything is decided before anything is written, and every file is written atomically, so an error leaves things as
they were and a second call finds nothing to do. The rules, record by record:

- A record must be of a cell of the plan under its present key, and belong to the record before it (train -> export ->
  accuracy and latency), as that stands here after the merge. Anything else is left, and said to be a fault.
- A student must come from the teacher that stands here.
- A done record beats a failed one. Of two done records of the same model the one that ended later stands.
- Two trainings of one cell with different weights are an error that names both; `replace` takes the other machine's.
- An export of the same weights to another ONNX file is left, as the bench here is of the one here; `replace` takes it.
- Latencies are taken a bench run at a time or not at all, because a ratio to the teacher holds within its run. A run
  replaces an earlier one only where it has every model that the earlier one has.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.files import atomic_path, file_sha256
from harness.plan.planning import Plan
from harness.store.paths import Paths
from harness.transfer.decisions import Decisions, Merged, Shelf
from harness.transfer.foreign_results import Source, history, read_source, run_of


def merge(plan: Plan, paths: Paths, folders: Sequence[Path], replace: bool = False) -> Merged:
    """Merge the records of these folders (like results/full), one after the other, into the plan's profile.

    Raises HarnessError, with nothing written, where two trainings of one cell differ and `replace` is not given.
    """
    shelf = Shelf(plan, paths.results)
    merged = Merged()
    writes: dict[Path, bytes] = {}
    for folder in folders:
        source = read_source(folder, plan)
        merged.left += source.left
        decisions = Decisions(plan, shelf, source, replace, merged)
        decisions.decide()
        writes |= decisions.writes
        writes |= _raw(plan, paths, source, shelf, writes)
    for path, content in writes.items():
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        merged.taken.append(path.relative_to(paths.results / plan.profile).as_posix())
    merged.set_aside += _set_aside(plan, paths, shelf)
    return merged


def _raw(plan: Plan, paths: Paths, source: Source, shelf: Shelf, writes: dict[Path, bytes]) -> dict[Path, bytes]:
    """pytest-benchmark's files of the bench runs that stand here now, and the logs of unattended runs, where new."""
    here = paths.results / plan.profile
    standing = {run_of(record) for record in shelf.latencies()}
    known = {run for _, run in history(here)}
    added: dict[Path, bytes] = {}
    for path, run in history(source.folder):
        folder = here / "pytest-benchmark" / path.parent.name
        taken = [
            *folder.glob("[0-9][0-9][0-9][0-9]_*.json"),
            *(one for one in {**writes, **added} if one.parent == folder),
        ]
        numbers = [int(one.name[:4]) for one in taken]
        if run in standing - known:
            known.add(run)
            added[folder / f"{max(numbers, default=0) + 1:04d}_{path.name[5:]}"] = path.read_bytes()
    for path in sorted((source.folder / "runs").glob("*.json")):
        if not (here / "runs" / path.name).exists():
            added[here / "runs" / path.name] = path.read_bytes()
    return added


def _set_aside(plan: Plan, paths: Paths, shelf: Shelf) -> list[Path]:
    """Rename weights here that are not those of a record just taken, with what was made from them; nothing is lost."""
    moved = []
    for cell in plan.cells:
        folder = cell.artifacts(paths.artifacts, plan.profile)
        weights, wanted = folder / "weights.safetensors", shelf.weights(cell)
        if ("train", cell.id, "") not in shelf.taken or wanted is None or not weights.is_file():
            continue
        sha256 = file_sha256(weights)
        if sha256 != wanted:
            for name in ("weights.safetensors", "model.onnx", "answers.npy"):
                path = folder / name
                if path.is_file():
                    moved.append(path.rename(folder / f"{path.stem}-{sha256[:12]}{path.suffix}"))
    return moved


def as_text(merged: Merged) -> str:
    """What was taken, by stage; what was left, with the reason; the sums."""
    lines = [f"set aside: {path}" for path in merged.set_aside]
    by_reason: dict[tuple[bool, str], list[str]] = {}
    for one in merged.left:
        by_reason.setdefault((one.fault, one.reason), []).append(one.name)
    for (fault, reason), names in sorted(by_reason.items()):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"{'refused' if fault else 'left'}: {names[0]}{more}: {reason}")
    counts = Counter(name.partition("/")[0] for name in merged.taken)
    stages = ", ".join(f"{count} {stage}" for stage, count in counts.items())
    refused = f", {len(merged.faults)} refused" if merged.faults else ""
    lines.append(
        f"{len(merged.taken)} files taken{f' ({stages})' if stages else ''}, {len(merged.same)} the same already, "
        f"{len(merged.left) - len(merged.faults)} left{refused}."
    )
    return "\n".join(lines)


def as_document(merged: Merged) -> str:
    """The same as JSON."""
    left = [vars(one) for one in merged.left]
    aside = [str(path) for path in merged.set_aside]
    return json.dumps({"taken": merged.taken, "same": merged.same, "left": left, "set_aside": aside}, indent=1)
