"""From settings to a plan: which cells there are, what each is called, and the stages that make it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan import registry
from harness.plan.bench_settings import ESTIMATOR, Combination
from harness.plan.settings import BASIC_AXES, Experiment, Point, Protocol, Recipe, Settings
from harness.plan.specs import (
    Accuracy,
    Choice,
    Data,
    Export,
    JointObjective,
    Latency,
    Network,
    Objective,
    Pruned,
    Sparse,
    StagedObjective,
    Student,
    Teacher,
    sampling_of,
)

R = TypeVar("R", bound=Recipe)


def kd_label(method: str) -> str:
    """The KD column of a table: Base, FMSE+Base, GRAM+Base, ..."""
    return registry.find("method", method).title


def kd_number(method: str) -> str:
    """A KD method as titles name it: by the study's number where it has one."""
    plugin = registry.find("method", method)
    return str(plugin.constants.get("NUMBER", plugin.label))


def kd_name(given: str) -> str:
    """A KD method given by the study's number or by name; HarnessError names what is allowed."""
    by_number = {kd_number(name): name for name in registry.names("method") if kd_number(name).isdigit()}
    name = by_number.get(given, given if ":" in given else given.lower())
    if ":" not in name and name not in registry.names("method"):
        numbers = ", ".join(f"{number} ({name})" for number, name in sorted(by_number.items()))
        raise HarnessError(
            f"--kd-method {given}: unknown; allowed: {numbers} or a name: {', '.join(registry.names('method'))}"
        )
    return name


@dataclass(frozen=True)
class Cell:
    """One point of the matrix: a model file that should exist, and where it stands on the axes of its experiment."""

    id: str
    title: str
    spec: Export
    # axis -> value, empty for the teacher
    point: Mapping[str, Any]
    seed: int
    protocol: str | None = None

    @property
    def trained(self) -> Teacher | Student:
        """The stage that trains the model."""
        return self.spec.start

    @property
    def teacher(self) -> Teacher:
        """The unpruned network that the cell comes from, or is."""
        first = self.spec.lineage[0]
        assert isinstance(first, Teacher)
        return first

    @property
    def student(self) -> Student:
        """The training stage of a cell that is no teacher."""
        assert isinstance(self.trained, Student)
        return self.trained

    @property
    def is_teacher(self) -> bool:
        """Whether this is the unpruned network that the others come from."""
        return isinstance(self.trained, Teacher)

    @property
    def model_id(self) -> str:
        """The id of the trained model, which cells of other export forms share."""
        return self.id.removesuffix(f"-{self.spec.form}")

    @property
    def prune_amount(self) -> float | None:
        """The share of channels that is asked to go; None for the teacher."""
        return self.point.get("prune_amount")

    @property
    def prune_method(self) -> str | None:
        """The pruning criterion; None for the teacher."""
        return self.point.get("prune_method")

    @property
    def kd_method(self) -> str | None:
        """The distillation method; None for the teacher."""
        return self.point.get("kd_method")

    def artifacts(self, root: Path, profile: str) -> Path:
        """The folder that holds this cell's weights, model file and checkpoint."""
        return root / profile / folder_name(self.model_id, self.trained.key)


def folder_name(model: str, key: str) -> str:
    """The name of a trained model's folder, by its id and the key of its training."""
    return f"{model}-{key.partition('-')[2][:8]}"


@dataclass(frozen=True)
class Table:
    """An experiment as planned: its cells in the order of the file, the teacher first; `axes` are those of its own."""

    name: str
    title: str
    protocol: str
    cells: tuple[Cell, ...]
    axes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All that one profile asks for; a cell that several experiments share is there once."""

    profile: str
    dataset: str
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

    def only(self, ids: Collection[str]) -> "Plan":
        """The plan of the teacher and these cells: small enough to be sent to whoever makes them."""

        def few(table: Table) -> Table:
            return replace(table, cells=tuple(cell for cell in table.cells if cell.is_teacher or cell.id in ids))

        return replace(self, tables=tuple(map(few, self.tables)))

    def latency(self, cell: Cell, condition: str) -> Latency:
        """The measurement of a cell's latency under a condition."""
        engine, isa, threads = self._conditions[condition]
        shown = self.settings.bench.instruction_set(isa)
        return Latency(cell.spec, engine, shown, threads, self._sampling, ESTIMATOR)

    def accuracy(self, cell: Cell) -> Accuracy:
        """The measurement of a cell's accuracy."""
        engine, isa, threads = self.settings.bench.combinations[0]
        return Accuracy(cell.spec, engine, self.settings.bench.instruction_set(isa), threads)

    def as_host(self) -> "Plan":
        """The same cells, measured under the host's instruction set alone."""
        return replace(self, settings=self.settings.model_copy(update={"bench": self.settings.bench.as_host()}))

    @cached_property
    def _conditions(self) -> dict[str, Combination]:
        """What is asked for, and what takes its place on a machine that cannot show the target's instruction set."""
        bench = self.settings.bench
        return {one.name: one for one in (*bench.combinations, *bench.as_host().combinations)}

    @cached_property
    def _sampling(self) -> dict[str, Any]:
        return sampling_of(self.settings.bench)

    @cached_property
    def groups(self) -> tuple[tuple[Cell, ...], ...]:
        """The students by value, the most valuable first: what to make where there may not be time for all of them.

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
    settings: Settings, profile: str, dataset: str | None = None, experiments: Collection[str] | None = None
) -> Plan:
    """Expand the experiments (the profile's, or those named) into cells, over the profile's data set or its fallback.

    Pure, but for hashing a given checkpoint. HarnessError on an unknown experiment, and where two cells would have one
    id.
    """
    known = {experiment.name: experiment for experiment in settings.experiment}
    names = list(dict.fromkeys(experiments or settings.experiments))
    for name in names:
        if name not in known:
            raise HarnessError(f"experiment {name!r} does not exist; allowed: {', '.join(known)}")
    dataset = dataset or settings.data.dataset
    teacher = teacher_cell(settings, dataset)
    tables, keys = [], {teacher.id: teacher.spec.key}
    for name in names:
        experiment = known[name]
        builder = Builder(settings, teacher, experiment.protocol)
        made = map(builder.student, _points(experiment, builder.protocol))
        cells = list({(cell.id, cell.spec.key): cell for cell in made}.values())
        ids: dict[str, str] = {}
        for cell in cells:
            if keys.setdefault(cell.id, cell.spec.key) != cell.spec.key:
                raise HarnessError(f"experiment {name!r}: two different cells have the id {cell.id}; rename a plug-in")
            if (twin := ids.setdefault(cell.spec.key, cell.id)) != cell.id:
                raise HarnessError(
                    f"experiment {name!r}: an axis has no effect: {twin} and {cell.id} are the same model"
                )
        axes = tuple(experiment.more)
        tables.append(Table(name, experiment.title, experiment.protocol, (teacher, *cells), axes))
    return Plan(profile, dataset, settings, tuple(tables))


def _points(experiment: Experiment, protocol: Protocol) -> Iterator[dict[str, Any]]:
    names = list(experiment.axes)
    for values in product(*experiment.axes.values()):
        point = _relevant(dict(zip(names, values, strict=True)), protocol)
        if not any(_matches(excluded, point) for excluded in experiment.exclude):
            yield point
    for extra in experiment.include:
        yield _relevant(extra.named, protocol)


def _relevant(point: dict[str, Any], protocol: Protocol) -> dict[str, Any]:
    """The point without axes that do not concern it: other plug-ins' parameters, and sparse training if it has none."""
    if len(point) == len(BASIC_AXES):
        return point
    own = {"method": _with_uses(point["kd_method"]), "criterion": [point["prune_method"]]}

    def concerns(axis: str) -> bool:
        section, _, rest = axis.partition(".")
        if section in own:
            return rest.rpartition(".")[0] in own[section]
        return not axis.startswith("pruning.sparse.") or point["prune_method"] in protocol.sparse_for

    return {axis: value for axis, value in point.items() if concerns(axis)}


def _matches(named: Point, point: Mapping[str, Any]) -> bool:
    return all(axis in point and point[axis] == value for axis, value in named.named.items())


def teacher_cell(settings: Settings, dataset: str) -> Cell:
    """The unpruned network: trained by recipe, or taken from a checkpoint known by its hash."""
    teacher, model, data = settings.teacher, settings.model, settings.data
    parameters = settings.parameters("dataset", dataset)
    classes = parameters.get("classes") or registry.find("dataset", dataset).constants["CLASSES"]
    architecture = Choice(model.architecture, settings.parameters("architecture", model.architecture))
    images = Data(Choice(dataset, parameters), data.train_images, tuple(data.augment), data.image_size)
    network = Network(architecture, classes, model.width, model.stem)
    if teacher.checkpoint:
        path = Path(teacher.checkpoint)
        if not path.is_file():
            raise HarnessError(f"teacher.checkpoint: {path}: no such file; give a checkpoint or leave the key out")
        spec = Teacher(network, images, None, teacher.seed, "fp32", None, file_sha256(path))
    else:
        recipe = _resolved(Recipe.model_validate(teacher.model_dump(include=set(Recipe.model_fields))), data.image_size)
        calibration = settings.pruning.calibration if recipe.image_sizes[-1] != data.image_size else None
        spec = Teacher(network, images, recipe, teacher.seed, settings.precision, calibration)
    export = Export(spec, settings.export.form, settings.export.opset)
    title = registry.find("architecture", model.architecture).title
    return Cell(f"teacher-s{teacher.seed}", title, export, {}, teacher.seed)


class Variant:
    """The settings at one combination of the axes beside the basic ones, and what cells take from them.

    Plug-ins are files, so what they say is read once for a plan rather than once for a cell.
    """

    def __init__(self, settings: Settings, protocol: Protocol) -> None:
        size = settings.data.image_size
        self.settings, self.protocol = settings, protocol
        self.student, self.sparse = _resolved(settings.student, size), _resolved(settings.pruning.sparse, size)
        self.round_to = rounding(settings)
        self.criterion, self.method = cache(self._criterion), cache(self._method)

    def _criterion(self, name: str) -> tuple[Choice, bool]:
        """A pruning criterion, and whether it draws random numbers."""
        draws = bool(registry.find("criterion", name).constants.get("SEEDED", False))
        return Choice(name, self.settings.parameters("criterion", name)), draws

    def _method(self, name: str) -> tuple[tuple[Choice, ...], Objective]:
        """A KD method with those that it makes use of, and what it learns from."""
        choices = (Choice(one, self.settings.parameters("method", one)) for one in _with_uses(name))
        return tuple(choices), objective_of(self.protocol, name)


class Builder:
    """Makes the cells of one protocol. Stages that cells share are the same objects, so each key is hashed once."""

    def __init__(self, settings: Settings, teacher: Cell, protocol: str) -> None:
        self.settings, self.teacher = settings, teacher.teacher
        self.name, self.protocol = protocol, settings.protocol[protocol]
        self._variants: dict[str, Variant] = {}
        self._sparse: dict[Any, Sparse] = {}
        self._pruned: dict[Any, Pruned] = {}
        self._labels = cache(_labels)

    def student(self, point: Mapping[str, Any]) -> Cell:
        """The cell at a point of the axes."""
        amount, criterion, kd, seed = (point[axis] for axis in BASIC_AXES)
        more = {axis: value for axis, value in point.items() if axis not in BASIC_AXES}
        variant = self._variant(more)
        settings = variant.settings
        methods, objective = variant.method(kd)
        start = self._start(variant, repr(more), amount, criterion, kd, seed)
        spec = Student(start, methods, objective, variant.student, seed, settings.precision)
        label, title = self._labels(criterion, kd)
        suffix = "" if self.name == "study" else f"-{self.name}"
        more_id = "".join(f"-{axis.rpartition('.')[2]}{_spelled(value)}" for axis, value in more.items())
        more_title = "".join(
            f"_{axis.rpartition('.')[2].upper()}({_spelled(value)})" for axis, value in more.items()
        ) + suffix.upper().replace("-", "_", 1)
        return Cell(
            id=f"p{amount}-{label}-s{seed}{more_id}{suffix}",
            title=f"P({amount}_{title})_SEED({seed}){more_title}",
            spec=Export(spec, settings.export.form, settings.export.opset),
            point=point,
            seed=seed,
            protocol=self.name,
        )

    def _variant(self, more: Mapping[str, Any]) -> Variant:
        name = repr(more)
        if name not in self._variants:
            try:
                settings = self.settings.with_axes(more) if more else self.settings
            except ValueError as error:
                named = ", ".join(f"{axis} = {value!r}" for axis, value in more.items())
                raise HarnessError(f"{named}: {error}") from error
            self._variants[name] = Variant(settings, self.protocol)
        return self._variants[name]

    def _start(self, variant: Variant, more: str, amount: float, criterion: str, kd: str, seed: int) -> Pruned:
        protocol, settings = self.protocol, variant.settings
        # One kept layer freezes its whole dependency group, so what is kept decides the student's size.
        keep_for = (kd,) if protocol.keep_for == "own" else tuple(sorted(set(protocol.keep_for)))
        choice, draws = variant.criterion(criterion)
        sparse = (more, criterion, keep_for, seed) if criterion in protocol.sparse_for else None
        if sparse and sparse not in self._sparse:
            self._sparse[sparse] = Sparse(self.teacher, choice, keep_for, variant.sparse, seed, settings.precision)
        start = self._sparse[sparse] if sparse else self.teacher
        pruned = (more, criterion, keep_for, amount, seed if draws or sparse else None)
        if pruned not in self._pruned:
            self._pruned[pruned] = Pruned(
                start,
                choice,
                amount,
                variant.round_to,
                keep_for,
                protocol.emptied_groups,
                settings.pruning.calibration,
                seed if draws else None,
            )
        return self._pruned[pruned]


def _labels(criterion: str, kd: str) -> tuple[str, str]:
    """A criterion and a KD method as part of ids, and as part of titles."""
    pruning, method = registry.find("criterion", criterion).label, registry.find("method", kd).label
    return f"{pruning}-{method}", f"{pruning.upper()})_KD({kd_number(kd)}"


def _with_uses(method: str) -> list[str]:
    """A KD method and those whose losses it makes use of, as its file says in USES."""
    return [method, *registry.find("method", method).constants.get("USES", ())]


def _spelled(value: Any) -> str:
    """An axis value as part of an id."""
    if isinstance(value, list):
        return "x".join(map(_spelled, value))
    return "".join(letter if letter.isalnum() or letter in "._" else "_" for letter in str(value).lower())


def _resolved(recipe: R, image_size: int) -> R:
    """The recipe with the sizes that it trains at written out, less what only repeats the last of them."""
    sizes = list(recipe.image_sizes) or [image_size]
    while len(sizes) > 1 and sizes[-1] == sizes[-2]:
        sizes.pop()
    return recipe.model_copy(update={"image_sizes": sizes})


def objective_of(protocol: Protocol, kd: str) -> Objective:
    """What the protocol has a KD method learn from; None for what the method has no use for."""
    constants = registry.find("method", kd).constants
    teacher, reads = constants.get("TEACHER", True), constants.get("FEATURES", False)
    features = protocol.features if reads else None
    if protocol.objective == "stages":
        return StagedObjective(features)
    return JointObjective(
        protocol.stages,
        protocol.temperature if teacher else None,
        protocol.label_weight if teacher else None,
        protocol.feature_weight.get(kd, 1.0) if reads else None,
        features,
    )


def rounding(settings: Settings) -> int:
    """The multiple that kept channel counts are rounded to.

    "auto" is the target's vector width, halved until the narrowest layer, pruned by half, still has a multiple of it:
    8 channels rounded to 8 could not be pruned at all.
    """
    if settings.pruning.round_to != "auto":
        return settings.pruning.round_to
    multiple = settings.bench.target.cpu.vectors.channels
    while multiple > 1 and settings.model.narrowest < 2 * multiple:
        multiple //= 2
    return multiple
