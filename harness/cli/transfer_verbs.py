"""The verbs that move results between machines: merge records, pack and unpack weights."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import ARTIFACTS, MATRIX, RESULTS, Artifacts, Json, Matrix, Profile, Results

if TYPE_CHECKING:
    from harness.commands.scope import Scope
    from harness.plan.planning import Plan
    from harness.transfer.unpacking import Unpacked

Folders = Annotated[list[Path], typer.Argument(help="One or more folders.", metavar="FROM...")]


def _plan(scope: "Scope", recorded: str | None) -> "Plan":
    """The plan of all experiments, over the data set known here; where none is, over the one on record."""
    data, known = scope.settings.data, scope.paths.dataset_is_known(scope.settings, scope.profile)
    return scope.whole_plan(recorded if recorded in (data.dataset, data.fallback) and not known else None)


def merge(
    sources: Folders,
    profile: Profile = "full",
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the other machine's where both have trained a model.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Merge another machine's records (a folder like results) into ours; exit code 1 where some were refused."""
    from harness.commands.scope import Scope
    from harness.store.chain import Chain, as_measured
    from harness.store.lock import alone
    from harness.transfer.foreign_results import Source, dataset_of, profile_folder
    from harness.transfer.merging import as_document, as_text
    from harness.transfer.merging import merge as merge_folders

    scope = Scope.of(matrix, profile, results, artifacts)
    folders = [profile_folder(source, profile) for source in sources]
    planned = _plan(scope, dataset_of(folders[0]))
    # Where nothing has been measured here, the other machine says under which instruction set its headline is.
    others = [Source(planned, folder).chain for folder in folders]
    planned = as_measured(planned, [Chain(planned, results), *others])
    with alone(scope.paths, profile):
        merged = merge_folders(planned, scope.paths, folders, replace)
    print(as_document(merged) if as_json else as_text(merged))
    if merged.faults:
        raise typer.Exit(1)


def pack(
    which: Annotated[
        list[str] | None, typer.Argument(help="Ids of cells, teacher, best, or all (default).", metavar="[WHICH]...")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder that packs are written to.")] = Path("packs"),
    part_mib: Annotated[float, typer.Option(min=0.001, help="The largest part, in MiB.")] = 16.0,
    half: Annotated[
        bool, typer.Option("--half", help="Half precision, where accuracy stays within 0.05 points.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="The ONNX file as well.")] = False,
    profile: Profile = "full",
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
) -> None:
    """Pack trained weights in parts with a manifest of hashes; exit code 1 where some could not be packed."""
    from harness.commands.scope import Scope
    from harness.errors import HarnessError
    from harness.transfer.packing import chosen, pack_half, size_mib
    from harness.transfer.packing import pack as pack_whole

    if half and onnx:
        raise HarnessError("--half --onnx: an ONNX file is of the weights as they were trained; give one of the two")
    scope = Scope.of(matrix, profile, results, artifacts)
    planned, paths = scope.whole_plan(), scope.paths
    refused = 0
    for cell in chosen(planned, paths, which or []):
        try:
            if half:
                folder = pack_half(planned, paths, cell, out, part_mib)
            else:
                folder = pack_whole(planned, paths, cell, out, part_mib, onnx)
        except HarnessError as error:
            refused += 1
            print(f"refused: {error}")
        else:
            print(f"{folder}: {size_mib(folder):.1f} MiB")
    if refused:
        raise typer.Exit(1)


def unpack(
    sources: Folders,
    profile: Profile = "full",
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    as_json: Json = False,
) -> None:
    """Join packed weights again, every hash checked, for export and bench; merge their records first."""
    from harness.commands.scope import Scope
    from harness.errors import HarnessError
    from harness.store.lock import alone
    from harness.transfer.foreign_results import dataset_of
    from harness.transfer.manifest import manifests
    from harness.transfer.unpacking import unpack as unpack_one

    scope = Scope.of(matrix, profile, results, artifacts)
    planned, paths = _plan(scope, dataset_of(results / profile)), scope.paths
    found: list[Unpacked] = []
    refused: list[str] = []
    packs = manifests(sources)
    with alone(paths, profile):
        for path in packs:
            try:
                found.append(unpack_one(planned, paths, path))
            except HarnessError as error:
                refused.append(str(error))
    if as_json:
        print(json.dumps({"unpacked": [vars(one) for one in found], "refused": refused}, indent=1))
    else:
        for one in found:
            placed = f"{', '.join(one.placed)} put in place" if one.placed else "there already"
            print("; ".join([f"{one.cell}: {placed}", *one.notes]))
        for reason in refused:
            print(f"refused: {reason}")
    if refused:
        raise typer.Exit(1)
