"""From settings to a plan: which cells there are, what each is called, and what makes it that cell and no other.

A cell's key is a hash over everything that decides its numbers (model, data, protocol, recipe, seed, precision), and
over nothing else: not the order of the file, not where it runs, not library versions. The settings nest as the work
does, student -> pruned -> sparse -> teacher, and every layer has a key of its own, so that cells share what they can.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

from harness.errors import HarnessError
from harness.files import digest, file_sha256
from harness.plan.settings import Experiment, Point, Protocol, Recipe, Settings, method_names

# The study numbers its KD methods; others go by their names.
STUDY_NUMBERS = {"base": "0", "fmse": "1", "gram": "3"}
KD_LABELS = {"base": "Base", "none": "None", "scratch": "None (from scratch)"}
DataName = Literal["cifar100", "stand-in"]
# prune amount, prune method, KD method, seed; a teacher has none of the first three
Axes = tuple[float | None, str | None, str | None, int]


def kd_label(method: str) -> str:
    """The KD column of a table: Base, FMSE+Base, GRAM+Base, ..."""
    return KD_LABELS.get(method, f"{method.upper()}+Base")


def kd_name(given: str) -> str:
    """A KD method given by the study's number or by name; HarnessError names what is allowed."""
    by_number = {number: name for name, number in STUDY_NUMBERS.items()}
    name = by_number.get(given, given.lower())
    allowed = method_names("distillation")
    if name not in allowed:
        numbers = ", ".join(f"{number} ({name})" for number, name in sorted(by_number.items()))
        raise HarnessError(f"--kd-method {given}: unknown; allowed: {numbers} or a name: {', '.join(allowed)}")
    return name


@dataclass(frozen=True)
class Cell:
    """One point of the matrix: a model that should exist. `settings` is what `key` is a hash of."""

    id: str
    title: str
    settings: dict[str, Any]
    prune_amount: float | None = None
    prune_method: str | None = None
    kd_method: str | None = None
    seed: int = 0
    protocol: str | None = None

    @property
    def is_teacher(self) -> bool:
        """Whether this is the unpruned network that the others come from."""
        return self.kd_method is None

    @property
    def point(self) -> Axes:
        """A student's place on the axes of its experiment."""
        return (self.prune_amount, self.prune_method, self.kd_method, self.seed)

    @cached_property
    def key(self) -> str:
        """16 hex digits of SHA-256 over the settings."""
        return digest(self.settings, 16)

    def artifacts(self, root: Path, profile: str) -> Path:
        """The folder that holds this cell's weights, ONNX file and checkpoints."""
        return root / profile / f"{self.id}-{self.key[:8]}"


@dataclass(frozen=True)
class Table:
    """An experiment as planned: its cells in the order of the file, the teacher first."""

    name: str
    title: str
    protocol: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Plan:
    """All that one profile asks for; a cell that several experiments share is there once."""

    profile: str
    data: DataName
    settings: Settings
    tables: tuple[Table, ...]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell once, the teacher first, then in the order of the tables."""
        return tuple({cell.id: cell for table in self.tables for cell in table.cells}.values())

    @property
    def teacher(self) -> Cell:
        """The one teacher of the profile."""
        return self.tables[0].cells[0]

    def named(self, ids: Collection[str]) -> list[Cell]:
        """The cells with these ids, in the plan's order; all where none is given. HarnessError on an unknown one."""
        known = {cell.id: cell for cell in self.cells}
        for name in ids:
            if name not in known:
                raise HarnessError(f"profile {self.profile} has no cell {name!r}; `harness plan --json` lists the ids")
        return [cell for cell in self.cells if not ids or cell.id in ids]

    @cached_property
    def groups(self) -> tuple[tuple[Cell, ...], ...]:
        """The students by value, the most valuable first: what to make where time may not suffice for all.

        Tables in their order, in each what its experiment's `first` names and then the rest, seed after seed. A group
        has one seed, so that its students can train side by side. Decides when a cell is made, never what it is.
        """
        ranked: dict[tuple[int, int, int], list[Cell]] = {}
        seen = set()
        experiments = {experiment.name: experiment for experiment in self.settings.experiment}
        for number, table in enumerate(self.tables):
            first = experiments[table.name].first
            for cell in table.cells[1:]:
                if cell.id not in seen:
                    seen.add(cell.id)
                    place = next((at for at, point in enumerate(first) if _matches(point, cell.point)), len(first))
                    ranked.setdefault((number, place, cell.seed), []).append(cell)
        return tuple(tuple(ranked[rank]) for rank in sorted(ranked))


def make_plan(
    settings: Settings, profile: str, data: DataName = "cifar100", experiments: list[str] | None = None
) -> Plan:
    """Expand the experiments (the profile's, or those named) into cells. Pure, but for hashing a given checkpoint."""
    known = {experiment.name: experiment for experiment in settings.experiment}
    names = list(dict.fromkeys(experiments or settings.experiments))
    for name in names:
        if name not in known:
            raise HarnessError(f"experiment {name!r} does not exist; allowed: {', '.join(known)}")
    teacher = teacher_cell(settings, data)
    tables = []
    for name in names:
        experiment = known[name]
        protocol = settings.protocol[experiment.protocol]
        build = student_builder(settings, teacher, experiment.protocol, protocol)
        cells = dict.fromkeys(_points(experiment))
        tables.append(
            Table(name, experiment.title, experiment.protocol, (teacher, *(build(*point) for point in cells)))
        )
    return Plan(profile, data, settings, tuple(tables))


def _points(experiment: Experiment) -> Iterator[tuple[float, str, str, int]]:
    axes = product(experiment.prune_amount, experiment.prune_method, experiment.kd_method, experiment.seed)
    for point in axes:
        if not any(_matches(excluded, point) for excluded in experiment.exclude):
            yield point
    for extra in experiment.include:
        assert extra.prune_amount and extra.prune_method and extra.kd_method and extra.seed is not None
        yield (extra.prune_amount, extra.prune_method, extra.kd_method, extra.seed)


def _matches(named: Point, point: Axes) -> bool:
    wanted = (named.prune_amount, named.prune_method, named.kd_method, named.seed)
    return all(want is None or want == have for want, have in zip(wanted, point, strict=True))


def teacher_cell(settings: Settings, data: DataName) -> Cell:
    """The unpruned network: trained by recipe, or taken from a checkpoint known by its hash."""
    teacher = settings.teacher
    common = {
        "model": settings.model.model_dump(),
        "data": {"name": data, **settings.data.model_dump()},
    }
    if teacher.checkpoint:
        path = Path(teacher.checkpoint)
        if not path.is_file():
            raise HarnessError(f"teacher.checkpoint: {path}: no such file; give a checkpoint or leave the key out")
        origin: dict[str, Any] = {"checkpoint_sha256": file_sha256(path)}
    else:
        origin = {"recipe": _recipe(teacher), "seed": teacher.seed, "precision": settings.precision}
    name = f"teacher-s{teacher.seed}"
    return Cell(id=name, title="ResNet50", seed=teacher.seed, settings={"kind": "teacher", **common, **origin})


def student_builder(
    settings: Settings, teacher: Cell, protocol_name: str, protocol: Protocol
) -> Callable[[float, str, str, int], Cell]:
    """A function (prune amount, prune method, KD method, seed) -> cell, under one protocol."""
    sparse_recipe = settings.pruning.sparse.model_dump()
    recipe = _recipe(settings.student)
    round_to = rounding(settings)
    suffix = "" if protocol_name == "study" else f"-{protocol_name}"

    def build(amount: float, method: str, kd: str, seed: int) -> Cell:
        # One kept layer freezes its whole dependency group, so what is kept decides the student's size.
        keep_for = [kd] if protocol.keep_for == "own" else sorted(set(protocol.keep_for))
        start = teacher.settings
        if method in protocol.sparse_for:
            start = {
                "kind": "sparse",
                "method": method,
                "keep_for": keep_for,
                "recipe": sparse_recipe,
                "seed": seed,
                "precision": settings.precision,
                "start": start,
            }
        pruned = {
            "kind": "pruned",
            "method": method,
            "amount": amount,
            "round_to": round_to,
            "keep_for": keep_for,
            "start": start,
        }
        student = {
            "kind": "student",
            "kd": {"method": kd, **_objective(protocol, kd)},
            "recipe": recipe,
            "seed": seed,
            "precision": settings.precision,
            "start": pruned,
        }
        label = STUDY_NUMBERS.get(kd, kd)
        title = f"P({amount}_{method.upper()})_KD({label})_SEED({seed})"
        return Cell(
            id=f"p{amount}-{method}-{kd}-s{seed}{suffix}",
            title=title if not suffix else f"{title}_{protocol_name.upper()}",
            settings=student,
            prune_amount=amount,
            prune_method=method,
            kd_method=kd,
            seed=seed,
            protocol=protocol_name,
        )

    return build


def _recipe(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(include=set(Recipe.model_fields))


def _objective(protocol: Protocol, kd: str) -> dict[str, Any]:
    if protocol.objective == "stages":
        return {"objective": "stages"}
    return {
        "objective": "joint",
        "stages": protocol.stages,
        "temperature": protocol.temperature,
        "label_weight": protocol.label_weight,
        "feature_weight": protocol.feature_weight.get(kd, 1.0),
    }


def rounding(settings: Settings) -> int:
    """The multiple that kept channel counts are rounded to.

    "auto" is the target's vector width, halved until the narrowest layer, pruned by half, still has a multiple of it:
    8 channels rounded to 8 could not be pruned at all.
    """
    if settings.pruning.round_to != "auto":
        return settings.pruning.round_to
    multiple = settings.bench.target.vector_channels
    while multiple > 1 and settings.model.narrowest < 2 * multiple:
        multiple //= 2
    return multiple


def ancestry(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of a cell's stages in the order in which they run: teacher, sparse, pruned, student."""
    chain = [settings]
    while "start" in chain[-1]:
        chain.append(chain[-1]["start"])
    return chain[::-1]
