"""Records of an earlier scheme of keys, rewritten for the present one, so that a refactoring costs no trained model.

A record's key is a hash over its settings, which it keeps. So whoever changes what a stage's settings are made of says
here what the old settings are called in the new scheme, and every key follows: a student's from its teacher's, an
export's from its student's, a measurement's from its export's.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.files import read_json, write_text
from harness.plan import specs
from harness.plan.planning import folder_name
from harness.plan.specs import Document
from harness.store.records import as_text

# The scheme that is left -> what a stage's own settings (`kind` among them, `parent` not) are in the next one.
# Scheme 1 has no entry: its keys were over all stages at once and cannot be taken apart.
MIGRATIONS: dict[int, Callable[[Document], Document]] = {}
# The stages of records, each after the one whose keys its own depend on.
ORDER = ("train", "export", "latency", "accuracy")
KEY = re.compile(r"v(\d+)-[0-9a-f]+")


def migrate_folder(results: Path, artifacts: Path | None = None) -> list[Path]:
    """Rewrite every record of all profiles whose key is of an earlier scheme; returns the files that it has rewritten.

    With `artifacts`, the folders of trained models are renamed as their keys are, so that weights are found again.
    Each file is replaced atomically, and those that others depend on come last, so an interrupted migration can simply
    be repeated. What is no record stays as it is, and so does a record whose parent is not on record. HarnessError,
    with nothing changed, where there is no migration from a record's scheme.
    """
    renamed: dict[str, str] = {}
    rewritten: list[tuple[Path, Document, str]] = []
    for stage in ORDER:
        for path, record in _records(results, stage):
            spec = _migrated(record["spec"], _scheme(record["key"], path), renamed)
            if spec is not None:
                renamed[record["key"]] = key = specs.key_of(spec)
                rewritten.append((path, {**record, "spec": spec, "key": key}, record["key"]))
    for path, record, before in reversed(rewritten):
        if artifacts is not None and path.parent.name == "train":
            folder = artifacts / record["profile"]
            old, new = (folder / folder_name(record["cell"], key) for key in (before, record["key"]))
            if old.is_dir() and not new.exists():
                old.rename(new)
        write_text(path, as_text(record))
    return [path for path, _, _ in rewritten]


def _records(results: Path, stage: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every record of a stage whose key is of an earlier scheme."""
    for path in sorted(results.glob(f"*/{stage}/*/*.json" if stage == "latency" else f"*/{stage}/*.json")):
        try:
            record = read_json(path)
        except HarnessError:
            continue
        if not isinstance(record, dict) or not isinstance(record.get("spec"), dict):
            continue
        if (found := KEY.fullmatch(str(record.get("key")))) and int(found[1]) < specs.SCHEME:
            yield path, record


def _scheme(key: str, path: Path) -> int:
    scheme = int(key.partition("-")[0].removeprefix("v"))
    for step in range(scheme, specs.SCHEME):
        if step not in MIGRATIONS:
            raise HarnessError(
                f"{path}: its key is of scheme {scheme}, and there is no migration from scheme {step} to {step + 1}; "
                f"use the harness that wrote it, or make its model again"
            )
    return scheme


def _migrated(spec: Mapping[str, Any], scheme: int, renamed: Mapping[str, str]) -> Document | None:
    """A stage's settings in the present scheme; None where its parent has no key there."""
    parent = spec.get("parent")
    if isinstance(parent, Mapping):
        parent = _migrated(parent, scheme, renamed)
    elif parent is not None:
        parent = renamed.get(parent)
    if parent is None and "parent" in spec:
        return None
    own = {name: value for name, value in spec.items() if name != "parent"}
    for step in range(scheme, specs.SCHEME):
        own = MIGRATIONS[step](own)
    return own if parent is None else {**own, "parent": parent}
