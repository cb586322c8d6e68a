"""`python -m benchmarks.resume_cost FOLDER WIDTH SIZE BATCH IMAGES`: what a call does first that resumes training.

It is timed from outside, as a process of its own: imports, images, weights, checkpoints, and the first step of all
students, which compiles kernels.
"""

import sys
from pathlib import Path

from benchmarks.workload import Contestant, native_device, some_images, stream, students_plan, train_all
from harness.model_files.weights import load_weights


def main(folder: Path, width: float, image_size: int, batch_size: int, images: int) -> None:
    """One step of nine students from their checkpoints."""
    device = native_device()
    teacher, _ = load_weights(folder / "teacher.safetensors")
    device.place(teacher.eval().requires_grad_(False))
    learners = []
    for cell in students_plan(width, image_size, batch_size).cells[1:]:
        model, _ = load_weights(folder / f"{cell.id}.safetensors")
        learner = Contestant(cell.id, device.place(model), cell.student).learner(folder)
        learner.resume()
        assert learner.step == 1, f"{cell.id} was not resumed"
        # it stops again after its next step, and must not overwrite what it was resumed from
        learner.checkpoint = folder / "again" / f"{cell.id}.pt"
        learners.append(learner)
    batches = stream(some_images(images).to(device.torch), learners[0].recipe)
    train_all(learners, batches, device, teacher, keep_going=lambda: False)
    assert all(learner.step == 2 for learner in learners), "no step was taken"


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), *map(int, sys.argv[3:]))
