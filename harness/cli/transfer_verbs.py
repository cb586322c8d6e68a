"""The verbs that carry results between machines: merge records, pack and unpack weights."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.matrix_verbs import paths_of
from harness.cli.options import ARTIFACTS, MATRIX, RESULTS, Artifacts, Json, Matrix, Profile, Results

Folders = Annotated[list[Path], typer.Argument(help="One or more folders.", metavar="FROM...")]


def _everything(matrix: Path, profile: str, paths: Any, carried: str | None) -> Any:
    """The plan of all experiments, over the data set at hand; where none is at hand, over what is carried here."""
    from harness.plan.planning import make_plan
    from harness.plan.settings import load_settings

    settings = load_settings(matrix, profile)
    data = paths.data_at_hand(profile)
    if carried and data != carried and not paths.data_is_known(profile):
        data = carried
    return make_plan(settings, profile, data, [experiment.name for experiment in settings.experiment])


def merge(
    sources: Folders,
    profile: Profile = "full",
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    replace: Annotated[bool, typer.Option("--replace", help="Take what is carried where both were trained.")] = False,
    as_json: Json = False,
) -> None:
    """Merge another machine's records (a folder like results) into ours; exit code 1 where some were refused."""
    from harness.store.lock import alone
    from harness.transfer.foreign_results import data_of, profile_folder
    from harness.transfer.merging import as_document, as_text
    from harness.transfer.merging import merge as merge_folders

    paths = paths_of(results, artifacts)
    folders = [profile_folder(source, profile) for source in sources]
    planned = _everything(matrix, profile, paths, data_of(folders[0]))
    with alone(paths, profile):
        merged = merge_folders(planned, paths, folders, replace)
    print(as_document(merged) if as_json else as_text(merged))
    if merged.faults:
        raise typer.Exit(1)


def pack(
    which: Annotated[
        list[str] | None, typer.Argument(help="Ids of cells, teacher, best, or all (default).", metavar="[WHICH]...")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder that packs are written to.")] = Path("packs"),
    part_mib: Annotated[float, typer.Option(min=0.001, help="The largest part, in MiB.")] = 16.0,
    half: Annotated[bool, typer.Option("--half", help="Half precision, where accuracy stays within 0.05 points.")] = (
        False
    ),
    onnx: Annotated[bool, typer.Option("--onnx", help="The ONNX file as well.")] = False,
    profile: Profile = "full",
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
) -> None:
    """Pack trained weights in parts with a manifest of hashes; exit code 1 where some could not be packed."""
    from harness.errors import HarnessError
    from harness.transfer.packing import chosen, size_mib
    from harness.transfer.packing import pack as pack_whole

    if half and onnx:
        raise HarnessError("--half --onnx: an ONNX file is of the weights as they were trained; give one of the two")
    paths = paths_of(results, artifacts)
    planned = _everything(matrix, profile, paths, None)
    refused = 0
    for cell in chosen(planned, paths, which or []):
        try:
            if half:
                from harness.transfer.half_precision import pack_half

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
    """Rejoin packed weights, every hash checked, for export and bench; their records have to be merged before."""
    from harness.errors import HarnessError
    from harness.store.lock import alone
    from harness.transfer.foreign_results import data_of
    from harness.transfer.manifest import manifests
    from harness.transfer.packing import unpack as unpack_one

    paths = paths_of(results, artifacts)
    planned = _everything(matrix, profile, paths, data_of(results / profile))
    found: list[Any] = []
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
