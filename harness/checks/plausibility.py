"""Can the models be what their rows say: pruned as asked, exported faithfully, and as good and fast as expected?"""

import math
from collections.abc import Iterator

from harness.checks import limits
from harness.checks.evidence import Evidence
from harness.checks.fault import Fault
from harness.store.records import PARITY_TOP1_PCT, parity_limit


def denormal_weights(evidence: Evidence) -> Iterator[Fault]:
    """Weights so small that a CPU takes many times as long to compute with them."""
    for entry in evidence.entries.values():
        count = entry.export.denormal_weights if entry.export else None
        if count:
            yield Fault(entry, "export", f"{count} weights of the ONNX file are denormal numbers")


def parity_lost(evidence: Evidence) -> Iterator[Fault]:
    """An ONNX file whose answers were not torch's when it was exported."""
    for entry in evidence.entries.values():
        if not entry.export:
            continue
        difference, largest = entry.export.parity_max_abs_diff, entry.export.parity_largest_logit
        agreement = entry.export.parity_top1_agreement_pct
        limit = parity_limit(largest) if largest is not None else None
        if difference is not None and limit is not None and not difference <= limit:
            reason = f"logits differ from torch's by {difference:.2g}, up to {limit:.2g} is allowed"
            yield Fault(entry, "export", reason)
        elif agreement is not None and not agreement >= PARITY_TOP1_PCT:
            reason = f"top-1 agrees with torch on {agreement:.1f} % of the images, {PARITY_TOP1_PCT:g} % is needed"
            yield Fault(entry, "export", reason)


def pruned_otherwise(evidence: Evidence) -> Iterator[Fault]:
    """A pruned model that lost a share of its ranked channels far from the share that was asked for."""
    for entry in evidence.entries.values():
        pruning = entry.train.pruning if entry.train else None
        if pruning is None or pruning.ranked_before <= 0:
            continue
        removed = 1 - pruning.ranked_after / pruning.ranked_before
        if not abs(removed - pruning.amount) <= limits.PRUNED_SHARE:
            emptied = ", ".join(pruning.emptied_layers)
            why = f"; layers that would have lost every channel: {emptied}" if emptied else ""
            share = f"{removed:.0%} of the ranked channels are gone, {pruning.amount:.0%} were asked for"
            yield Fault(entry, "train", share + why)


def impossible_accuracy(evidence: Evidence) -> Iterator[Fault]:
    """An accuracy that is zero, or missing from a record that is done."""
    for entry, record in evidence.accuracies():
        if record.accuracy_pct is None:
            yield Fault(entry, "accuracy", "the record is done and has no accuracy")
        elif record.accuracy_pct == 0:
            yield Fault(entry, "accuracy", "not one image is answered right")


def chance_accuracy(evidence: Evidence) -> Iterator[Fault]:
    """A model that does no better than guessing."""
    for entry, record in evidence.accuracies():
        chance = 1 / entry.cell.teacher.network.classes
        if not record.accuracy_pct or not record.images:
            continue
        limit = 100 * (chance + limits.CHANCE_SD * math.sqrt(chance * (1 - chance) / record.images))
        if 0 < record.accuracy_pct <= limit:
            reason = f"{record.accuracy_pct:.2f} % is no better than guessing (up to {limit:.2f} % by chance)"
            yield Fault(entry, "accuracy", reason)


def differs_from_torch(evidence: Evidence) -> Iterator[Fault]:
    """An accuracy in the bench that is not the one that torch measured with the same weights and images."""
    for entry, record in evidence.accuracies():
        ours, torchs = record.accuracy_pct, entry.train.accuracy_pct if entry.train else None
        if ours is None or torchs is None or ours == 0:
            continue
        # A little room, so that a difference of exactly the limit does not depend on rounding.
        if not abs(ours - torchs) <= limits.ACCURACY_DIFFERENCE + 1e-9:
            limit = f"up to {limits.ACCURACY_DIFFERENCE:g} points are allowed"
            yield Fault(entry, "accuracy", f"{ours:.2f} % in the bench, {torchs:.2f} % in torch; {limit}")


def other_answers(evidence: Evidence) -> Iterator[Fault]:
    """A model that gives other answers in the bench than in torch, however many of them are right."""
    for entry, record in evidence.accuracies():
        same = record.agreement_pct
        if same is not None and not same >= limits.AGREEMENT_PCT:
            reason = f"answers {same:.2f} % of the images as torch does, {limits.AGREEMENT_PCT:g} % is needed"
            yield Fault(entry, "accuracy", reason)


def above_teacher(evidence: Evidence) -> Iterator[Fault]:
    """A student far better than its teacher."""
    teacher = evidence.teacher.accuracy
    for entry, record in evidence.accuracies():
        if teacher and teacher.accuracy_pct is not None and record.accuracy_pct is not None:
            above = record.accuracy_pct - teacher.accuracy_pct
            if above > limits.STUDENT_ABOVE_TEACHER:
                yield Fault(entry, "accuracy", f"{above:.1f} points above the teacher's {teacher.accuracy_pct:.2f} %")


def slower_than_teacher(evidence: Evidence) -> Iterator[Fault]:
    """A pruned model that takes longer than the network it was pruned from."""
    for entry, record in evidence.latencies():
        ratio = record.ratio_to_teacher
        if ratio and ratio.value > 1 and not ratio.covers(1) and not entry.cell.is_teacher:
            reason = f"latency ratio {ratio.text('.2f')}: slower than the teacher"
            yield Fault(entry, "latency", reason)
