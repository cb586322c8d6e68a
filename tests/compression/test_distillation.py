import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from harness.architectures import Architecture, Outputs, architecture_of, build, tapped, widths_of
from harness.compression.distillation import Method, Phase, Setup, method_of
from harness.compression.distillation._losses import soft_targets, study_loss
from harness.errors import HarnessError
from harness.plan import registry
from harness.plan.specs import JointObjective, Network, Objective, StagedObjective
from tests.drop_in import METHOD, imported
from tests.training_kit import network, outputs, thin

Array = npt.NDArray[np.float64]
STUDENT = [[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]]
TEACHER = [[2.0, 0.0, -1.0], [4.0, 1.0, 0.5]]
LABELS = torch.tensor([2, 1])
JOINT = JointObjective(2, 4.0, 0.1, 0.5, "sum")
STAGED = StagedObjective("sum")
GIVEN = outputs(STUDENT), outputs(TEACHER)
RESNET50 = architecture_of(thin())
STAGES = RESNET50.stages
TAPS = ["stem", *(tap for stage in STAGES for tap in (stage.first, stage.norm, stage.sum))]
BASE = registry.find("method", "base").parameters


def setup(method: str, objective: Objective = STAGED, epochs: int = 1, **parameters: Any) -> Setup:
    uses = registry.find("method", method).constants.get("USES", ())
    used = {name: registry.resolve("method", name, {}) for name in uses}
    return Setup(RESNET50, objective, epochs, registry.resolve("method", method, parameters), used)


def phases(method: str, objective: Objective = STAGED, epochs: int = 1, **parameters: Any) -> list[Phase]:
    return method_of(method).phases(setup(method, objective, epochs, **parameters))


def softmax(logits: Any, temperature: float = 1.0) -> Array:
    scaled = np.exp(np.asarray(logits, dtype=np.float64) / temperature)
    return scaled / scaled.sum(1, keepdims=True)


def hinton(temperature: float, student: Any = STUDENT, teacher: Any = TEACHER) -> float:
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return float(temperature**2 * (p * np.log(p / q)).sum() / len(p))


def label_loss() -> float:
    return float(-np.log(softmax(STUDENT)[[0, 1], LABELS.numpy()]).mean())


def features(seed: int, scale: float = 2.0) -> dict[str, Array]:
    """Two images with features of 3 channels (4 for first convolutions) and 2 x 2 pixels at each tap."""
    random = np.random.default_rng(seed)
    return {tap: scale * random.normal(size=(2, 4 if tap.endswith("conv1") else 3, 2, 2)) for tap in TAPS}


def seen(values: dict[str, Array], logits: Any = STUDENT) -> Outputs:
    tensors = {tap: torch.tensor(value, dtype=torch.float32) for tap, value in values.items()}
    return Outputs(torch.tensor(logits), tensors)


def loss_of(method: str, objective: Objective, student: Outputs, teacher: Outputs, **parameters: Any) -> float:
    """The first phase's loss."""
    return phases(method, objective, **parameters)[0].loss(student, teacher, LABELS).item()


# --- Base ------------------------------------------------------------------------------------------------------------


def test_the_studys_base_loss_is_cross_entropy_at_two_temperatures_less_a_dead_zone() -> None:
    terms = -softmax(TEACHER, 2) * np.log(softmax(STUDENT) + 1e-6)
    assert (terms < 0.1).any() and (terms > 0.1).any()
    expected = np.maximum(terms - 0.1, 0).sum(1).mean()
    assert study_loss(*GIVEN, BASE).item() == pytest.approx(expected, rel=1e-5)
    assert loss_of("base", STAGED, *GIVEN) == pytest.approx(expected, rel=1e-5)


def transcribed(student: Tensor, teacher: Tensor) -> Tensor:
    """The study's lines: -softmax(t / 2) * log(softmax(s) + 1e-6), less 0.1 where that is more, summed."""
    each = -torch.softmax(teacher / 2, 1) * torch.log(torch.softmax(student, 1) + 1e-6)
    return torch.maximum(each - 0.1, torch.zeros_like(each)).sum(1).mean()


@pytest.mark.parametrize("deviation", [3.0, 5.0])
def test_the_guard_is_the_studys_in_value_and_gradient(deviation: float) -> None:
    """Without it the loss is 2 % and the gradient 15 % off at logits of deviation 3, and far more at 5."""
    random = torch.Generator().manual_seed(0)
    given = [deviation * torch.randn(64, 100, generator=random, dtype=torch.float64) for _ in range(2)]

    def both(loss: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        student = given[0].to(dtype).requires_grad_()
        value = loss(student, given[1].to(dtype))
        (gradient,) = torch.autograd.grad(value, student)
        return value.detach().double(), gradient.double()

    value, gradient = both(transcribed, torch.float64)
    ours = both(lambda s, t: study_loss(Outputs(s, {}), Outputs(t, {}), BASE), torch.float32)
    torch.testing.assert_close(ours[0], value, rtol=1e-5, atol=0)
    torch.testing.assert_close(ours[1], gradient, rtol=1e-3, atol=1e-9)
    unguarded = both(lambda s, t: study_loss(Outputs(s, {}), Outputs(t, {}), {**BASE, "guard": 0.0}), torch.float32)
    assert (unguarded[0] - value) / value > 0.01
    assert (unguarded[1] - gradient).norm() / gradient.norm() > 0.1


def test_the_constants_of_base_are_its_parameters() -> None:
    terms = -softmax(TEACHER, 3) * np.log(softmax(STUDENT) + 0.01)
    expected = np.maximum(terms - 0.05, 0).sum(1).mean()
    found = loss_of("base", STAGED, *GIVEN, temperature=3.0, dead_zone=0.05, guard=0.01)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_soft_targets_are_a_scaled_divergence(temperature: float) -> None:
    assert soft_targets(*GIVEN, temperature).item() == pytest.approx(hinton(temperature), rel=1e-5)


def test_soft_targets_by_hand() -> None:
    """Two classes at T = 2: the teacher says 2/3 and 1/3, the student a half each.

    KL = 2/3 ln(4/3) + 1/3 ln(2/3) = 0.0566330; times T^2 = 4.
    """
    teacher, student = outputs([[2 * math.log(2), 0.0]]), outputs([[0.0, 0.0]])
    assert soft_targets(student, teacher, 2.0).item() == pytest.approx(0.2265321, rel=1e-5)


def test_soft_targets_are_zero_for_a_student_that_agrees() -> None:
    assert soft_targets(outputs(TEACHER), outputs(TEACHER), 4.0).item() == pytest.approx(0, abs=1e-6)


# --- FMSE and GRAM ---------------------------------------------------------------------------------------------------


def last(objective: Objective) -> list[str]:
    return [stage.norm if objective.features == "norm" else stage.sum for stage in STAGES]


def fmse_errors(objective: Objective) -> list[Array]:
    student, teacher = features(0), features(1)
    return [(student[tap] - teacher[tap]) ** 2 for tap in ("stem", *last(objective))]


def flow(values: dict[str, Array], stage: int, objective: Objective) -> Array:
    first, after = values[STAGES[stage].first], values[last(objective)[stage]]
    return np.einsum("nahw,nbhw->nab", first, after) / 4


def gram_errors(objective: Objective) -> list[Array]:
    flows = [[flow(features(seed), stage, objective) for stage in range(4)] for seed in (0, 1)]
    return [(ours - theirs) ** 2 for ours, theirs in zip(*flows, strict=True)]


@pytest.mark.parametrize("where", ["sum", "norm"])
def test_the_studys_fmse_sums_squared_errors_past_a_dead_zone_over_taps(where: Any) -> None:
    objective = StagedObjective(where)
    expected = sum(np.maximum(error - 0.1, 0).mean() for error in fmse_errors(objective))
    assert loss_of("fmse", objective, seen(features(0)), seen(features(1))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("where", ["sum", "norm"])
def test_the_studys_gram_is_a_tenth_of_squared_flow_errors_past_a_dead_zone(where: Any) -> None:
    objective = StagedObjective(where)
    errors = gram_errors(objective)
    assert min(error.min() for error in errors) < 1 < max(error.max() for error in errors)
    expected = 0.1 * sum(np.maximum(error - 1, 0).mean() for error in errors)
    assert loss_of("gram", objective, seen(features(0)), seen(features(1))) == pytest.approx(expected, rel=1e-5)


def test_the_constants_of_fmse_and_gram_are_their_parameters() -> None:
    student, teacher = seen(features(0)), seen(features(1))
    expected = sum(np.maximum(error - 0.5, 0).mean() for error in fmse_errors(STAGED))
    assert loss_of("fmse", STAGED, student, teacher, dead_zone=0.5) == pytest.approx(expected, rel=1e-5)
    expected = 0.3 * sum(np.maximum(error - 2, 0).mean() for error in gram_errors(STAGED))
    assert loss_of("gram", STAGED, student, teacher, dead_zone=2.0, scale=0.3) == pytest.approx(expected, rel=1e-5)


def test_the_flow_matrix_by_hand() -> None:
    """Yim et al. (2017), eq. 1: G[i, j] = sum over h x w places of F1[., i] F2[., j], over h x w."""
    from harness.compression.distillation.gram import flow as found

    first = torch.tensor([[[[1.0, 2.0]], [[0.0, 4.0]]]])  # two channels, 1 x 2 places
    second = torch.tensor([[[[3.0, 5.0]], [[1.0, -1.0]], [[0.0, 2.0]]]])
    matrix = found({"a": first, "b": second}, ("a", "b"))
    assert matrix.tolist() == [[[(3 + 10) / 2, (1 - 2) / 2, (0 + 4) / 2], [20 / 2, -4 / 2, 8 / 2]]]


def feature_term(method: str, student: Outputs, teacher: Outputs) -> float:
    """The joint loss less what Base has of it."""
    weight = JOINT.feature_weight
    assert weight
    parts = [phases(name, JOINT)[0].loss(student, teacher, LABELS).item() for name in (method, "base")]
    return (parts[0] - parts[1]) / weight


def test_the_papers_fmse_is_the_mean_over_taps() -> None:
    expected = np.mean([error.mean() for error in fmse_errors(JOINT)])
    assert feature_term("fmse", seen(features(0)), seen(features(1))) == pytest.approx(expected, rel=1e-4)


def test_the_papers_gram_is_the_mean_of_squared_flow_errors() -> None:
    expected = np.mean([error.mean() for error in gram_errors(JOINT)])
    assert feature_term("gram", seen(features(0)), seen(features(1))) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", ["fmse", "gram"])
def test_a_student_with_the_teachers_features_has_nothing_to_learn(method: str) -> None:
    same = seen(features(0)), seen(features(0))
    assert loss_of(method, STAGED, *same) == 0
    assert feature_term(method, *same) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("method", ["fmse", "gram"])
def test_the_study_ignores_small_errors_and_the_papers_do_not(method: str) -> None:
    student, teacher = seen(features(0, 0.05)), seen(features(1, 0.05))
    assert loss_of(method, STAGED, student, teacher) == 0
    assert feature_term(method, student, teacher) > 0


@pytest.mark.parametrize("objective", [STAGED, JOINT])
@pytest.mark.parametrize("method", ["fmse", "gram"])
def test_features_in_bf16_are_compared_in_float32(method: str, objective: Objective) -> None:
    given = [seen(features(seed)) for seed in (0, 1)]
    half = [Outputs(one.logits, {tap: value.bfloat16() for tap, value in one.features.items()}) for one in given]
    (first, *_) = phases(method, objective)
    loss = first.loss(half[0], half[1], LABELS)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(first.loss(given[0], given[1], LABELS).item(), rel=0.05)


# --- Logit standardisation -------------------------------------------------------------------------------------------


def standardised(logits: Any) -> Array:
    values = np.asarray(logits, dtype=np.float64)
    return (values - values.mean(1, keepdims=True)) / (values.std(1, ddof=1, keepdims=True) + 1e-7)


@pytest.mark.parametrize("objective", [STAGED, JOINT])
def test_standardised_logits_are_compared_beside_the_labels(objective: Objective) -> None:
    """Sun et al. (2024), eq. 9: T^2 times the divergence between z-scored logits at T; weight 9, labels 0.1."""
    soft = hinton(2.0, standardised(STUDENT), standardised(TEACHER))
    assert loss_of("logit_std", objective, *GIVEN) == pytest.approx(0.1 * label_loss() + 9 * soft, rel=1e-5)
    soft = hinton(3.0, standardised(STUDENT), standardised(TEACHER))
    found = loss_of("logit_std", objective, *GIVEN, temperature=3.0, weight=2.0, label_weight=1.0)
    assert found == pytest.approx(label_loss() + 2 * soft, rel=1e-5)


def test_standardised_logits_do_not_depend_on_range_and_mean() -> None:
    moved = outputs(3 * np.array(TEACHER) + 5)
    assert loss_of("logit_std", STAGED, GIVEN[0], moved) == pytest.approx(
        loss_of("logit_std", STAGED, *GIVEN), rel=1e-4
    )


# --- Methods on a network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["base", "fmse", "gram", "logit_std"])
@pytest.mark.parametrize("objective", [STAGED, StagedObjective("norm"), JOINT])
def test_the_gradient_reaches_the_student_and_not_the_teacher(method: str, objective: Objective) -> None:
    student, teacher = network(0).train(), network(1)
    teacher.requires_grad_(False)
    images = torch.randn(4, 3, 8, 8)
    for phase in phases(method, objective):
        student.zero_grad()
        logits, kept = tapped(teacher, images, phase.taps)
        # beyond every dead zone
        given = Outputs(50 * logits, {tap: 10 * feature for tap, feature in kept.items()})
        phase.loss(tapped(student, images, phase.taps), given, torch.tensor([1, 2, 3, 4])).backward()
        gradient = student.get_parameter("conv1.weight").grad
        assert gradient is not None and gradient.abs().sum() > 0
        assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("method", ["none", "scratch"])
@pytest.mark.parametrize("objective", [STAGED, JOINT])
def test_the_controls_learn_from_labels_alone(method: str, objective: Objective) -> None:
    (phase,) = phases(method, objective)
    assert not phase.needs_teacher and not phase.taps
    assert phase.loss(outputs(STUDENT), None, LABELS).item() == pytest.approx(label_loss(), rel=1e-5)


def test_only_scratch_starts_from_new_weights() -> None:
    assert [name for name in registry.names("method") if method_of(name).fresh_weights] == ["scratch"]


@pytest.mark.parametrize("architecture", registry.names("architecture"))
def test_kept_layers_are_those_that_the_losses_compare(architecture: str) -> None:
    with torch.device("meta"):
        layers = widths_of(build(thin(architecture)))
    found = architecture_of(thin(architecture))
    for name in ("base", "none", "scratch", "logit_std"):
        assert list(method_of(name).kept(found)) == []
    for name, count in (("fmse", 5), ("gram", 8)):
        kept = method_of(name).kept(found)
        assert set(kept) <= set(layers) and len(set(kept)) == count


class WithoutTaps(Architecture):
    """Names no features."""

    def build(self, network: Network) -> nn.Module:
        return nn.Linear(1, network.classes)


@pytest.mark.parametrize("method", ["fmse", "gram"])
def test_a_method_that_reads_features_says_so_where_the_architecture_names_none(method: str) -> None:
    given = Setup(WithoutTaps(), STAGED, 1, registry.resolve("method", method, {}), {})
    with pytest.raises(HarnessError, match=r"reads the .*features.*the architecture names n"):
        method_of(method).phases(given)
    assert list(method_of(method).kept(WithoutTaps())) == []


# --- Phases ----------------------------------------------------------------------------------------------------------


def shape(phase: Phase) -> tuple[str, int, bool]:
    return phase.name, phase.epochs, phase.needs_teacher


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("base", [("base", 3, True)]),
        ("fmse", [("feature", 3, True), ("base", 3, True)]),
        ("gram", [("feature", 3, True), ("base", 3, True)]),
        ("logit_std", [("logits", 3, True)]),
        ("none", [("labels", 3, False)]),
        ("scratch", [("labels", 3, False)]),
    ],
)
def test_the_study_puts_a_feature_stage_before_the_base_stage(
    method: str, expected: list[tuple[str, int, bool]]
) -> None:
    staged = phases(method, STAGED, 3)
    assert [shape(phase) for phase in staged] == expected
    assert staged[-1].taps == frozenset()


@pytest.mark.parametrize("where", ["sum", "norm"])
def test_a_feature_stage_reads_where_the_protocol_says(where: Any) -> None:
    objective = StagedObjective(where)
    assert phases("fmse", objective)[0].taps == {"stem", *last(objective)}
    assert phases("gram", objective)[0].taps == {*last(objective), *(stage.first for stage in STAGES)}


@pytest.mark.parametrize("method", ["fmse", "gram"])
def test_the_last_stage_has_the_loss_of_base_with_its_parameters(method: str) -> None:
    assert phases(method)[-1].loss(*GIVEN, LABELS) == study_loss(*GIVEN, BASE)
    given = setup(method)
    other = {**BASE, "temperature": 5.0}
    changed = Setup(given.architecture, STAGED, 1, given.parameters, {"base": other})
    assert method_of(method).phases(changed)[-1].loss(*GIVEN, LABELS) == study_loss(*GIVEN, other)


@pytest.mark.parametrize("method", registry.names("method"))
def test_a_joint_phase_is_as_long_for_every_method(method: str) -> None:
    assert [phase.epochs for phase in phases(method, JOINT, 3)] == [6]


@pytest.mark.parametrize("method", ["base", "fmse", "gram"])
def test_a_joint_loss_weighs_labels_predictions_and_features(method: str) -> None:
    student, teacher = seen(features(0)), seen(features(1), TEACHER)
    errors = {"fmse": fmse_errors(JOINT), "gram": gram_errors(JOINT)}.get(method)
    term = float(np.mean([error.mean() for error in errors])) if errors else 0.0
    expected = 0.1 * label_loss() + 0.9 * hinton(4) + 0.5 * term
    assert loss_of(method, JOINT, student, teacher) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("objective", [STAGED, JOINT])
def test_a_phase_that_needs_a_teacher_does_not_do_without(objective: Objective) -> None:
    for phase in phases("fmse", objective):
        with pytest.raises(AssertionError, match="teacher"):
            phase.loss(outputs(STUDENT), None, LABELS)


# --- Plug-ins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("method"))
def test_every_file_defines_a_method(name: str) -> None:
    assert isinstance(method_of(name), Method)


def test_a_method_may_have_modules_labels_and_phases_of_its_own(tmp_path: Path) -> None:
    METHOD.write(tmp_path)
    with imported(tmp_path):
        method = method_of(METHOD.name)
        assert method.modules
        given = Setup(
            RESNET50, STAGED, 3, registry.resolve("method", METHOD.name, {"hint_epochs": 2}), {}, lambda tap: (4, 6)
        )
        modules = method.modules(given)
        (regressor,) = modules.values()
        assert isinstance(regressor, nn.Conv2d) and (regressor.in_channels, regressor.out_channels) == (4, 6)
        ready = Setup(RESNET50, STAGED, 3, given.parameters, {}, given.channels, modules)
        first, second = method.phases(ready)
    assert [shape(phase) for phase in (first, second)] == [("hint", 2, True), ("labels", 3, True)]
    student = Outputs(torch.tensor(STUDENT), {"layer2.sum": torch.randn(2, 4, 2, 2)})
    teacher = Outputs(torch.tensor(TEACHER), {"layer2.sum": torch.randn(2, 6, 2, 2)})
    hint = first.loss(student, teacher, LABELS)
    hint.backward()
    assert regressor.weight.grad is not None and regressor.weight.grad.abs().sum() > 0
    assert second.loss(student, teacher, LABELS).item() == pytest.approx(hint.item() + label_loss(), rel=1e-5)


def test_a_module_that_is_no_method_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no_method.py").write_text("NAME = {}\n")
    with imported(tmp_path), pytest.raises(HarnessError, match=r"no_method:NAME.*is no Method"):
        method_of("no_method:NAME")
