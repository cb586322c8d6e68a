"""Takes another machine's records into this results folder: what belongs here and is not already better known.

Everything is decided before anything is written, and every file is written beside its place before the first one takes
it, so an error leaves things as they were. A second call finds nothing to do. The rules, record by record:

- A record must be of a cell of the plan, under the present key of its stage, and must stand here once it is taken:
  belong to the record before it (train -> export -> accuracy and latency). Anything else is left, and is called a fault
  where it does not stand on the other machine either.
- A student must come from the teacher that stands here.
- A done record beats a failed one. Of two done records of the same model the one that ended later is kept.
- Two trainings of one model with different weights are an error that names both; `replace` takes the other machine's.
- Of the same weights exported to two different ONNX files, the one here is kept, since the latencies here are of that
  file; `replace` takes the other machine's.
- An accuracy comes with the answers that it was counted from (harness.predictions), and is refused where these are not
  there or are not the ones that it names.
- Latencies are taken a bench run at a time or not at all, because a ratio to the teacher holds within its run. A run
  replaces an earlier one, and with `replace` a later one, only where it has every model that the one here has.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from harness.errors import HarnessError
from harness.files import atomic_path, file_sha256
from harness.plan.planning import Plan
from harness.store.paths import Paths, answers_file
from harness.store.records import TrainRecord
from harness.transfer.decisions import Decisions, LocalRecords, Merged
from harness.transfer.foreign_files import files_inside
from harness.transfer.foreign_results import Place, Source, history, run_of


def merge(plan: Plan, paths: Paths, folders: Sequence[Path], replace: bool = False) -> Merged:
    """Merge the records of these folders (like results/full), one after the other, into the plan's profile.

    Raises HarnessError, with nothing written, where two trainings of one model differ and `replace` is not given, and
    where not everything can be written.
    """
    local, merged = LocalRecords(plan, paths.results), Merged()
    for folder in folders:
        Decisions(plan, local, Source(plan, folder), replace, merged).decide()
    writes = {**local.writes, **_raw(local, folders)}
    _write(local.folder, writes)
    merged.taken += writes
    merged.set_aside += _set_aside(plan, paths, local)
    return merged


def _raw(local: LocalRecords, sources: Sequence[Path]) -> dict[str, bytes]:
    """pytest-benchmark's files of the bench runs that stand here now, and the logs of unattended runs, where new."""
    missing = {run_of(record) for record in local.latencies()} - {run for _, run in history(local.folder)}
    added: dict[str, bytes] = {}
    for source in sources:
        for path, run in history(source):
            folder = f"pytest-benchmark/{path.parent.name}"
            here = [one.name for one in (local.folder / folder).glob("[0-9][0-9][0-9][0-9]_*.json")]
            coming = [name.rpartition("/")[2] for name in added if name.startswith(f"{folder}/")]
            if run in missing:
                missing.remove(run)
                number = max((int(name[:4]) for name in (*here, *coming)), default=0) + 1
                added[f"{folder}/{number:04d}_{path.name[5:]}"] = path.read_bytes()
        for path in files_inside(source, "runs/*.json"):
            name = f"runs/{path.name}"
            if name not in added and not (local.folder / name).exists():
                added[name] = path.read_bytes()
    return added


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write all of the files, or none."""
    for name in files:
        if (folder / name).is_dir():
            raise HarnessError(f"{folder / name}: a folder lies where a file has to go; move it away")
    with ExitStack() as stack:
        for name, content in files.items():
            temporary = stack.enter_context(atomic_path(folder / name))
            try:
                with temporary.open("wb") as file:
                    file.write(content)
                    file.flush()
                    # a full disk is found out before the first file takes its place
                    os.fsync(file.fileno())
            except OSError as error:
                raise HarnessError(f"{folder}: cannot be written ({error.strerror}); nothing was merged") from error


def _set_aside(plan: Plan, paths: Paths, local: LocalRecords) -> list[Path]:
    """Rename weights here that are not those of a record just taken, with what was made from them; nothing is lost."""
    aside: dict[Path, str] = {}
    for cell in plan.cells:
        train = local.chain.train(cell).standing
        weights = paths.weights(plan.profile, cell)
        if Place(TrainRecord, cell).file not in local.writes or train is None or not weights.is_file():
            continue
        if (sha256 := file_sha256(weights)) != train.weights_sha256:
            made = (weights, answers_file(weights.parent), paths.model_file(plan.profile, cell))
            aside |= {path: sha256 for path in made if path.is_file()}
    return [path.rename(path.with_name(f"{path.stem}-{sha256[:12]}{path.suffix}")) for path, sha256 in aside.items()]


def as_text(merged: Merged) -> str:
    """What was taken, by stage; what was left, with the reason; and the totals."""
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
