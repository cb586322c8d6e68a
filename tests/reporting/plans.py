"""Plans with experiments of a test's own."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from harness.plan.planning import Plan, make_plan
from tests.documents import DOCUMENT, Load

EXPERIMENT = {
    "name": "own",
    "title": "Own",
    "protocol": "study",
    "prune_amount": [0.3],
    "prune_method": ["bn"],
    "kd_method": ["base"],
    "seed": [0],
}


def own_plan(load: Load, experiment: dict[str, Any], changes: dict[str, Any] | None = None) -> Plan:
    """A plan of profile long with this experiment alone; `changes` are laid over whole tables of matrix.toml."""
    document = deepcopy(DOCUMENT)
    document["experiment"].append({**EXPERIMENT, **experiment})
    for table, values in (changes or {}).items():
        document.setdefault(table, {}).update(values)
    return make_plan(load(document), "long", experiments=["own"])


def write_methods(folder: Path, titles: list[str]) -> list[str]:
    """KD methods in a folder, as matrix.toml names them: as far as planning and reporting look into their files."""
    for number, title in enumerate(titles):
        (folder / f"own_kd_{number}.py").write_text(f"TITLE = {title!r}\n", encoding="utf-8")
    return [f"own_kd_{number}:KD{number}" for number in range(len(titles))]
