import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from harness.architectures.resnet import TAPS, Outputs, full_widths
from harness.compression import distillation
from harness.compression.distillation import FeatureLoss, Method, Phase, base, fmse, gram, method, phases
from harness.plan import settings
from harness.plan.settings import method_names
from tests.training_kit import network, outputs

Array = npt.NDArray[np.float64]
STUDENT = [[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]]
TEACHER = [[2.0, 0.0, -1.0], [4.0, 1.0, 0.5]]
LABELS = torch.tensor([2, 1])
JOINT = {"objective": "joint", "stages": 2, "temperature": 4.0, "label_weight": 0.1, "feature_weight": 0.5}
FEATURE_LOSSES = [fmse.study_loss, fmse.paper_loss, gram.study_loss, gram.paper_loss]
GIVEN = outputs(STUDENT), outputs(TEACHER)


def softmax(logits: Any, temperature: float = 1.0) -> Array:
    scaled = np.exp(np.asarray(logits, dtype=np.float64) / temperature)
    return scaled / scaled.sum(1, keepdims=True)


def hinton(temperature: float) -> float:
    p, q = softmax(TEACHER, temperature), softmax(STUDENT, temperature)
    return float(temperature**2 * (p * np.log(p / q)).sum() / len(p))


def label_loss() -> float:
    return float(-np.log(softmax(STUDENT)[[0, 1], LABELS.numpy()]).mean())


def features(seed: int, taps: tuple[str, ...], scale: float = 2.0) -> dict[str, Array]:
    """Two images with features of 3 channels (4 for first convolutions) and 2 x 2 pixels at each tap."""
    random = np.random.default_rng(seed)
    return {tap: scale * random.normal(size=(2, 4 if tap.endswith("conv1") else 3, 2, 2)) for tap in taps}


def seen(values: dict[str, Array]) -> Outputs:
    return Outputs(torch.zeros(2, 3), {tap: torch.tensor(value, dtype=torch.float32) for tap, value in values.items()})


# --- Losses, against numpy -------------------------------------------------------------------------------------------


def test_the_studys_base_loss_is_cross_entropy_at_two_temperatures_less_a_dead_zone() -> None:
    terms = -softmax(TEACHER, 2) * np.log(softmax(STUDENT))
    assert (terms < 0.1).any() and (terms > 0.1).any()
    expected = np.maximum(terms - 0.1, 0).sum(1).mean()
    assert base.study_loss(*GIVEN).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_hintons_loss_is_a_scaled_divergence(temperature: float) -> None:
    assert base.paper_loss(*GIVEN, temperature).item() == pytest.approx(hinton(temperature), rel=1e-5)


def test_hintons_loss_by_hand() -> None:
    """Two classes at T = 2: the teacher says 2/3 and 1/3, the student a half each.

    KL = 2/3 ln(4/3) + 1/3 ln(2/3) = 0.0566330; times T^2 = 4.
    """
    teacher, student = outputs([[2 * math.log(2), 0.0]]), outputs([[0.0, 0.0]])
    assert base.paper_loss(student, teacher, 2.0).item() == pytest.approx(0.2265321, rel=1e-5)


def test_the_flow_matrix_by_hand() -> None:
    """Yim et al. (2017), eq. 1: G[i, j] = sum over h x w places of F1[., i] F2[., j], over h x w."""
    first = torch.tensor([[[[1.0, 2.0]], [[0.0, 4.0]]]])  # two channels, 1 x 2 places
    last = torch.tensor([[[[3.0, 5.0]], [[1.0, -1.0]], [[0.0, 2.0]]]])
    found = gram.flow({"layer2.conv1": first, "layer2.sum": last}, 2)
    assert found.tolist() == [[[(3 + 10) / 2, (1 - 2) / 2, (0 + 4) / 2], [20 / 2, -4 / 2, 8 / 2]]]


def test_hintons_loss_is_zero_for_a_student_that_agrees() -> None:
    assert base.paper_loss(outputs(TEACHER), outputs(TEACHER), 4.0).item() == pytest.approx(0, abs=1e-6)


def test_the_studys_fmse_sums_squared_errors_past_a_dead_zone_over_taps() -> None:
    student, teacher = features(0, fmse.TAPS), features(1, fmse.TAPS)
    expected = sum(np.maximum((student[tap] - teacher[tap]) ** 2 - 0.1, 0).mean() for tap in fmse.TAPS)
    assert fmse.study_loss(seen(student), seen(teacher)).item() == pytest.approx(expected, rel=1e-5)


def test_the_papers_fmse_is_the_mean_over_taps() -> None:
    student, teacher = features(0, fmse.TAPS), features(1, fmse.TAPS)
    expected = np.mean([((student[tap] - teacher[tap]) ** 2).mean() for tap in fmse.TAPS])
    assert fmse.paper_loss(seen(student), seen(teacher)).item() == pytest.approx(expected, rel=1e-5)


def flow(values: dict[str, Array], stage: int) -> Array:
    first, last = values[f"layer{stage}.conv1"], values[f"layer{stage}.sum"]
    return np.einsum("nahw,nbhw->nab", first, last) / 4


def test_the_studys_gram_is_a_tenth_of_squared_flow_errors_past_a_dead_zone() -> None:
    student, teacher = features(0, gram.METHOD.taps), features(1, gram.METHOD.taps)
    errors = [(flow(student, stage) - flow(teacher, stage)) ** 2 for stage in (1, 2, 3, 4)]
    assert min(error.min() for error in errors) < 1 < max(error.max() for error in errors)
    expected = 0.1 * sum(np.maximum(error - 1, 0).mean() for error in errors)
    assert gram.study_loss(seen(student), seen(teacher)).item() == pytest.approx(expected, rel=1e-5)


def test_the_papers_gram_is_the_mean_of_squared_flow_errors() -> None:
    student, teacher = features(0, gram.METHOD.taps), features(1, gram.METHOD.taps)
    expected = np.mean([((flow(student, s) - flow(teacher, s)) ** 2).mean() for s in (1, 2, 3, 4)])
    assert gram.paper_loss(seen(student), seen(teacher)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", FEATURE_LOSSES)
def test_a_student_with_the_teachers_features_has_nothing_to_learn(loss: FeatureLoss) -> None:
    assert loss(seen(features(0, TAPS)), seen(features(0, TAPS))).item() == 0


@pytest.mark.parametrize("loss", [fmse.study_loss, gram.study_loss])
def test_the_study_ignores_small_errors_and_the_papers_do_not(loss: FeatureLoss) -> None:
    student, teacher = seen(features(0, TAPS, 0.05)), seen(features(1, TAPS, 0.05))
    assert loss(student, teacher).item() == 0
    assert fmse.paper_loss(student, teacher).item() > 0 and gram.paper_loss(student, teacher).item() > 0


def test_features_in_bf16_are_compared_in_float32() -> None:
    student, teacher = features(0, TAPS), features(1, TAPS)
    half = [
        Outputs(torch.zeros(2, 3), {tap: value.bfloat16() for tap, value in seen(values).features.items()})
        for values in (student, teacher)
    ]
    for loss in FEATURE_LOSSES:
        assert loss(*half).dtype == torch.float32
        assert loss(*half).item() == pytest.approx(loss(seen(student), seen(teacher)).item(), rel=0.05)


# --- Methods on a network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base", "fmse", "gram"])
@pytest.mark.parametrize("objective", ["stages", "joint"])
def test_the_gradient_reaches_the_student_and_not_the_teacher(name: str, objective: str) -> None:
    student, teacher = network(0).train(), network(1)
    teacher.requires_grad_(False)
    images = torch.randn(4, 3, 8, 8)
    for phase in phases({"method": name, **JOINT, "objective": objective}, 1):
        student.zero_grad()
        logits, kept = teacher.tapped(images, phase.taps)
        # beyond every dead zone
        given = Outputs(50 * logits, {tap: 10 * feature for tap, feature in kept.items()})
        phase.loss(student.tapped(images, phase.taps), given, torch.tensor([1, 2, 3, 4])).backward()
        assert student.conv1.weight.grad is not None and student.conv1.weight.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("name", ["none", "scratch"])
@pytest.mark.parametrize("objective", ["stages", "joint"])
def test_the_controls_learn_from_labels_alone(name: str, objective: str) -> None:
    (phase,) = phases({"method": name, **JOINT, "objective": objective}, 1)
    assert not phase.needs_teacher and not phase.taps
    assert phase.loss(outputs(STUDENT), None, LABELS).item() == pytest.approx(label_loss(), rel=1e-5)


def test_only_scratch_starts_from_new_weights() -> None:
    assert [name for name in method_names("distillation") if method(name).fresh_weights] == ["scratch"]


def test_what_is_kept_makes_the_losses_defined() -> None:
    full = full_widths(0.0625)
    assert method("base").kept == ()
    for name, count in (("fmse", 5), ("gram", 8)):
        assert set(method(name).kept) <= set(full) and len(method(name).kept) == count


def test_an_unknown_tap_is_a_mistake_of_the_methods_author() -> None:
    with pytest.raises(ValueError, match=r"layer5\.sum.*stem"):
        Method(taps=("stem", "layer5.sum"))


# --- Phases ----------------------------------------------------------------------------------------------------------


def shape(phase: Phase) -> tuple[str, int, bool]:
    return phase.name, phase.epochs, phase.needs_teacher


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("base", [("base", 3, True)]),
        ("fmse", [("feature", 3, True), ("base", 3, True)]),
        ("gram", [("feature", 3, True), ("base", 3, True)]),
        ("none", [("labels", 3, False)]),
    ],
)
def test_the_study_puts_a_feature_stage_before_the_base_stage(name: str, expected: list[tuple[str, int, bool]]) -> None:
    staged = phases({"method": name, "objective": "stages"}, 3)
    assert [shape(phase) for phase in staged] == expected
    assert staged[0].taps == frozenset(method(name).taps)
    assert staged[-1].taps == (frozenset() if name != "none" else staged[0].taps)


def test_the_studys_stages_have_its_losses() -> None:
    feature, last = phases({"method": "fmse", "objective": "stages"}, 1)
    student, teacher = seen(features(0, fmse.TAPS)), seen(features(1, fmse.TAPS))
    assert feature.loss(student, teacher, LABELS) == fmse.study_loss(student, teacher)
    assert last.loss(*GIVEN, LABELS) == base.study_loss(*GIVEN)


@pytest.mark.parametrize("name", ["none", "scratch", "base", "fmse", "gram"])
def test_a_joint_phase_is_as_long_for_every_method(name: str) -> None:
    assert [phase.epochs for phase in phases({"method": name, **JOINT}, 3)] == [6]


def with_features(logits: Any, values: dict[str, Array]) -> Outputs:
    return Outputs(torch.tensor(logits), seen(values).features)


@pytest.mark.parametrize("name", ["base", "fmse", "gram"])
def test_a_joint_loss_weighs_labels_predictions_and_features(name: str) -> None:
    student, teacher = with_features(STUDENT, features(0, TAPS)), with_features(TEACHER, features(1, TAPS))
    term = method(name).paper
    expected = 0.1 * label_loss() + 0.9 * hinton(4) + (0.5 * term(student, teacher).item() if term else 0)
    (phase,) = phases({"method": name, **JOINT}, 1)
    assert phase.loss(student, teacher, LABELS).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("objective", ["stages", "joint"])
def test_a_phase_that_needs_a_teacher_does_not_do_without(objective: str) -> None:
    for phase in phases({"method": "fmse", **JOINT, "objective": objective}, 1):
        with pytest.raises(AssertionError, match="teacher"):
            phase.loss(outputs(STUDENT), None, LABELS)


# --- One file each ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", method_names("distillation"))
def test_every_file_defines_a_method(name: str) -> None:
    assert isinstance(method(name), Method)


NEW = """
from harness.compression.distillation import Method
from harness.architectures.resnet import Outputs

def loss(student: Outputs, teacher: Outputs):
    return (student.features["stem"] - teacher.features["stem"]).abs().mean()

METHOD = Method(taps=("stem",), kept=("conv1",), study=loss, paper=loss)
"""


def test_a_new_file_is_a_new_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "distillation"
    shutil.copytree(settings.METHODS / "distillation", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "stem.py").write_text(NEW)
    monkeypatch.setattr(settings, "METHODS", tmp_path)
    monkeypatch.setattr(distillation, "__path__", [*distillation.__path__, str(folder)])
    assert "stem" in method_names("distillation")
    try:
        feature, last = phases({"method": "stem", "objective": "stages"}, 2)
    finally:
        sys.modules.pop("harness.compression.distillation.stem", None)
    student, teacher = seen(features(0, ("stem",))), seen(features(1, ("stem",)))
    difference: Tensor = (student.features["stem"] - teacher.features["stem"]).abs().mean()
    assert feature.loss(student, teacher, LABELS) == difference
    assert (feature.taps, last.name) == (frozenset({"stem"}), "base")
