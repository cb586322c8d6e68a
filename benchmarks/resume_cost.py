"""`python -m benchmarks.resume_cost FOLDER SIZE BATCH IMAGES`: what a call does that goes on after a stop.

A process of its own: imports, data, weights, checkpoints, and the first step of all students, which compiles kernels.
"""

import sys
from pathlib import Path

from benchmarks.contenders import KD_METHODS, PRUNE_METHODS, RECIPE, some_images, train_all
from harness.architectures.resnet import load_weights
from harness.compression.distillation import phases
from harness.training.data import Stream
from harness.training.device import choose_device
from harness.training.loop import Learner


def main(folder: Path, image_size: int, batch: int, images: int) -> None:
    """One step of nine students from where they stood."""
    device = choose_device("auto")
    stream = Stream(some_images(images).to(device.torch), batch, image_size, ("crop", "flip"), seed=0)
    teacher, _ = load_weights(folder / "teacher.safetensors")
    device.place(teacher.eval().requires_grad_(False))
    learners = []
    for name in (f"{method}-{kd}" for method in PRUNE_METHODS for kd in KD_METHODS):
        model, _ = load_weights(folder / f"{name}.safetensors")
        device.place(model)
        kd = {"method": name.split("-")[1], "objective": "stages"}
        learner = Learner(name, model, RECIPE, phases(kd, 1), folder / f"{name}.pt")
        learner.resume()
        assert learner.step == 1, f"{name} did not go on"
        learners.append(learner)
    # it stops again after that step, and must not overwrite what it went on from
    for learner in learners:
        learner.checkpoint = folder / "again" / f"{learner.name}.pt"
    train_all(learners, stream, device, teacher, keep_going=lambda: False)
    assert all(learner.step == 2 for learner in learners), "no step was taken"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
