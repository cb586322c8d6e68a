"""A training step that a GPU repeats as recorded: CUDA graphs.

A step is thousands of kernels. Where images are small or networks thin, starting them one by one takes the host longer
than computing them takes a large GPU. So a learner's first steps at a size and with a loss are taken as usual, the next
one is recorded, and all others replay the record, which starts everything at once. What a recorded step reads must lie
in the same memory each time: a `Desk` sees to the batches, and the learner keeps its rate in a tensor.

Memory: all records of a run share one pool, since they are replayed one after the other and keep nothing in it that
outlives a step.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.architectures import Outputs

# Images [N, C, H, W], labels [N], and the teacher's outputs where a learner wants them.
Lesson = tuple[Tensor, Tensor, Outputs | None]
Step = Callable[[], None]
# Records a step without taking it, and returns what takes it from then on.
Recorder = Callable[[Step], Step]

# Steps taken as usual before one is recorded: in these, kernels are chosen and workspaces made.
WARM_UP = 3


class Desk:
    """A fixed place in memory for the lesson at hand; lessons of another shape get another place."""

    def __init__(self) -> None:
        self._place: Lesson | None = None

    def put(self, images: Tensor, labels: Tensor, outputs: Outputs | None) -> Lesson:
        """The same lesson, where lessons of its shape always lie."""
        new: Lesson = (images, labels, outputs)
        if self._place is None or _shape(self._place) != _shape(new):
            features = {tap: value.clone() for tap, value in outputs.features.items()} if outputs else {}
            kept = Outputs(outputs.logits.clone(), features) if outputs else None
            self._place = images.clone(), labels.clone(), kept
        else:
            for place, value in zip(_tensors(self._place), _tensors(new), strict=True):
                place.copy_(value, non_blocking=True)
        return self._place


class Replays:
    """One learner's steps: taken as usual, then recorded, then replayed, as long as they are alike.

    A step that cannot be recorded is taken as usual from then on, and a warning says so.
    """

    def __init__(self, record: Recorder) -> None:
        self._record = record
        self._alike: Any = None
        self._taken = 0
        self._replay: Step | None = None

    def take(self, step: Step, phase: str, lesson: Lesson) -> None:
        """Take a step, whose loss is the phase's and which reads this lesson."""
        alike = (phase, _shape(lesson), [value.data_ptr() for value in _tensors(lesson)])
        if alike != self._alike:
            self._alike, self._taken, self._replay = alike, 0, None
        if self._replay is None and self._taken == WARM_UP:
            try:
                self._replay = self._record(step)
            except RuntimeError as error:
                warnings.warn(f"a step ({phase}) is not recorded as a CUDA graph: {error}", stacklevel=2)
                self._replay = step
        (self._replay or step)()
        self._taken += 1


def cuda_recorder(device: torch.device) -> Recorder:
    """Records as CUDA graphs that share their memory. Recording computes nothing: the record has to be replayed."""
    pool = torch.cuda.graph_pool_handle()

    def record(step: Step) -> Step:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(graph, pool=pool):
            step()
        return graph.replay

    return record


def _tensors(lesson: Lesson) -> list[Tensor]:
    images, labels, outputs = lesson
    taught = [outputs.logits, *(outputs.features[tap] for tap in sorted(outputs.features))] if outputs else []
    return [images, labels, *taught]


def _shape(lesson: Lesson) -> Any:
    taps = sorted(lesson[2].features) if lesson[2] else None
    return taps, [(value.shape, value.stride(), value.dtype) for value in _tensors(lesson)]
