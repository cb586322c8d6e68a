"""Models that cannot be what their rows say and rows that do not go together, each with the check that must find it."""

import math
from typing import Any

from harness.store.records import AccuracyRecord, Epoch, ExportRecord, LatencyRecord, TrainRecord, parity_limit
from tests.checks.planted import CELL, TEACHER, Bench, fault
from tests.synthetic import CLOSED


@fault("mixed-training", (CELL, "train"))
def another_training_device(bench: Bench) -> None:
    bench.environment(TrainRecord, device="Another GPU")


@fault("mixed-training", (TEACHER, "train"))
def the_teacher_trained_by_another_torch(bench: Bench) -> None:
    bench.environment(TrainRecord, TEACHER, torch="2.12.0")


@fault("mixed-machines", (CELL, "latency"))
def another_machine(bench: Bench) -> None:
    bench.environment(LatencyRecord, cpu="Another CPU")


@fault("mixed-machines", (CELL, "latency"))
def another_instruction_set(bench: Bench) -> None:
    bench.environment(LatencyRecord, isa=["avx2"])


@fault("mixed-images", (CELL, "latency"))
def another_image(bench: Bench) -> None:
    bench.environment(LatencyRecord, image="sha256:0123", enclosure=CLOSED)


@fault("mixed-runs", (CELL, "latency"))
def another_run(bench: Bench) -> None:
    bench.environment(LatencyRecord, run="run-2")


@fault("mixed-runs", (TEACHER, "latency"))
def the_teacher_from_another_run(bench: Bench) -> None:
    bench.environment(LatencyRecord, TEACHER, run="run-2")


@fault("mixed-test-images", (CELL, "accuracy"))
def other_test_images(bench: Bench) -> None:
    bench.change(AccuracyRecord, testset_sha256="cd" * 32)


@fault("mixed-test-images", (CELL, "accuracy"))
def fewer_test_images(bench: Bench) -> None:
    bench.change(AccuracyRecord, images=5_000, correct=bench.get(AccuracyRecord).correct // 2)
    accuracy = 100 * bench.get(AccuracyRecord).correct / 5_000
    bench.change(AccuracyRecord, accuracy_pct=accuracy)


@fault("mixed-accuracy-machines", (CELL, "accuracy"))
def accuracy_from_another_machine(bench: Bench) -> None:
    bench.environment(AccuracyRecord, cpu="Another CPU")


def pruned(bench: Bench, share: float, **more: Any) -> None:
    """Pruning took this share of the cell's ranked channels."""
    pruning = bench.get(TrainRecord).pruning
    left = round(pruning.ranked_before * (1 - share))
    bench.change(TrainRecord, pruning=pruning.model_copy(update={"ranked_after": left, **more}))


@fault("pruned-otherwise", (CELL, "train"))
def less_pruned_than_was_asked_for(bench: Bench) -> None:
    pruned(bench, 0.19, emptied_layers=["layer4.0.conv1", "layer4.2.conv2"])


@fault("pruned-otherwise", (CELL, "train"))
def more_pruned_than_was_asked_for(bench: Bench) -> None:
    pruned(bench, 0.41)


@fault("denormal-weights", (CELL, "export"))
def denormals(bench: Bench) -> None:
    bench.change(ExportRecord, denormal_weights=1234)


@fault("parity-lost", (CELL, "export"))
def logits_off(bench: Bench) -> None:
    limit = parity_limit(bench.get(ExportRecord).parity_largest_logit)
    bench.change(ExportRecord, parity_max_abs_diff=1.01 * limit)


@fault("unreadable-record", (CELL, "export"))
def nan_parity(bench: Bench) -> None:
    bench.change(ExportRecord, parity_max_abs_diff=math.nan)


@fault("parity-lost", (CELL, "export"))
def answers_off(bench: Bench) -> None:
    bench.change(ExportRecord, parity_top1_agreement_pct=100 * 248 / 256)


def accuracy(bench: Bench, percent: float) -> None:
    """Torch and the bench agree on this accuracy of the cell."""
    bench.change(AccuracyRecord, accuracy_pct=percent, correct=round(100 * percent))
    bench.change(TrainRecord, accuracy_pct=percent)


@fault("impossible-accuracy", (CELL, "accuracy"))
def zero_accuracy(bench: Bench) -> None:
    accuracy(bench, 0.0)


@fault("unreadable-record", (CELL, "accuracy"))
def nan_accuracy(bench: Bench) -> None:
    bench.change(AccuracyRecord, accuracy_pct=math.nan)


@fault("false-figure", (CELL, "accuracy"))
def counts_that_do_not_give_the_accuracy(bench: Bench) -> None:
    bench.change(AccuracyRecord, correct=bench.get(AccuracyRecord).correct + 1)


@fault("impossible-accuracy", (CELL, "accuracy"))
def done_without_an_accuracy(bench: Bench) -> None:
    bench.change(AccuracyRecord, accuracy_pct=None)


@fault("chance-accuracy", (CELL, "accuracy"))
def guessing(bench: Bench) -> None:
    accuracy(bench, 1.2)


@fault("differs-from-torch", (CELL, "accuracy"))
def accuracy_not_torchs(bench: Bench) -> None:
    bench.change(TrainRecord, accuracy_pct=bench.get(AccuracyRecord).accuracy_pct + 0.2)


@fault("other-answers", (CELL, "accuracy"))
def as_many_right_answers_to_other_images(bench: Bench) -> None:
    bench.change(AccuracyRecord, agreement_pct=93.0)


@fault("unreadable-record", (CELL, "accuracy"))
def nan_agreement(bench: Bench) -> None:
    bench.change(AccuracyRecord, agreement_pct=math.nan)


@fault("above-teacher", (CELL, "accuracy"))
def far_above_the_teacher(bench: Bench) -> None:
    accuracy(bench, 95.0)


@fault("slower-than-teacher", (CELL, "latency"))
def slower_than_the_teacher(bench: Bench) -> None:
    bench.measured(bench.slowed(lambda _: 1.2))


@fault("false-figure", (CELL, "train"))
def pruning_that_left_other_parameters(bench: Bench) -> None:
    edit_pruning(bench, params_after=bench.get(TrainRecord).pruning.params_after // 10)


@fault("false-figure", (CELL, "train"))
def pruning_of_another_teacher_s_size(bench: Bench) -> None:
    edit_pruning(bench, macs_before=bench.get(TrainRecord).pruning.macs_before + 1)


@fault("false-figure", (CELL, "train"))
def pruning_by_another_amount_than_is_planned(bench: Bench) -> None:
    edit_pruning(bench, amount=0.35)


def edit_pruning(bench: Bench, **changes: Any) -> None:
    """Change what pruning is said to have done."""
    bench.change(TrainRecord, pruning=bench.get(TrainRecord).pruning.model_copy(update=changes))


@fault("false-figure", (TEACHER, "train"))
def an_epoch_less_than_the_recipe_has(bench: Bench) -> None:
    recipe = bench.cell(TEACHER).teacher.recipe
    assert recipe
    epoch = Epoch(phase="teacher", loss=1.0, accuracy_pct=50.0, lr=0.1, images_per_s=100.0)
    bench.change(TrainRecord, TEACHER, epochs=[epoch] * (recipe.epochs - 1))


@fault("false-figure", (CELL, "export"))
def agreement_of_no_whole_number_of_images(bench: Bench) -> None:
    bench.change(ExportRecord, parity_top1_agreement_pct=99.9)
