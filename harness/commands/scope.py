"""What a command is about: a matrix file, one of its profiles, some of its experiments, and the folders to work in."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.plan.loading import load_settings
from harness.plan.planning import Plan, make_plan
from harness.plan.settings import Settings
from harness.store.chain import Chain, as_measured
from harness.store.paths import Paths, data_root


@dataclass(frozen=True)
class Scope:
    """The options that most commands share. `experiments`: by name; none is all of the profile's."""

    matrix: Path
    profile: str
    paths: Paths
    experiments: Sequence[str] = ()

    @classmethod
    def of(
        cls, matrix: Path, profile: str, results: Path, artifacts: Path, experiments: Sequence[str] | None = None
    ) -> "Scope":
        """The scope that the options name, with the data where DATA_DIR says."""
        return cls(matrix, profile, Paths(results, artifacts, data_root()), tuple(experiments or ()))

    @cached_property
    def settings(self) -> Settings:
        """matrix.toml with the profile laid over it."""
        return load_settings(self.matrix, self.profile)

    def plan(self, dataset: str | None = None) -> Plan:
        """The cells, over the data set at hand or the one given, under the instruction sets that were measured."""
        return self._as_measured(self._planned(dataset, self.experiments))

    def plan_to_measure(self) -> Plan:
        """The cells under the instruction sets that matrix.toml asks for, whatever was measured before."""
        return self._planned(None, self.experiments)

    def whole_plan(self, dataset: str | None = None) -> Plan:
        """The cells of every experiment of the matrix, whether or not the profile runs it."""
        everything = [experiment.name for experiment in self.settings.experiment]
        return self._as_measured(self._planned(dataset, everything))

    def _planned(self, dataset: str | None, experiments: Sequence[str]) -> Plan:
        at_hand = dataset or self.paths.dataset(self.settings, self.profile)
        return make_plan(self.settings, self.profile, at_hand, experiments)

    def _as_measured(self, plan: Plan) -> Plan:
        return as_measured(plan, [Chain(plan, self.paths.results)])

    def of_profile(self, profile: str) -> "Scope":
        """The same folders and all experiments of another profile."""
        return Scope(self.matrix, profile, self.paths)
