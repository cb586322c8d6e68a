"""What a model is fed while it is timed: images of the test set, or numbers drawn for any inputs; each is distinct."""

import math
import zlib
from collections.abc import Sequence

import numpy as np

from harness.bench.engines import Array
from harness.bench.job import Assignment, DrawnInput
from harness.bench.testset import load_testset, preprocess

Feed = dict[str, Array]
# Enough that neither caches nor branch predictors can learn them all, few enough to be prepared at once.
DISTINCT = 256
# Of large inputs fewer are drawn, but never a single one.
MOST_BYTES, FEWEST = 128 * 2**20, 4


def feeds(assignment: Assignment) -> list[Feed]:
    """The distinct feeds of one process, the same for all models of the block that take the same inputs."""
    seed, block = assignment.settings.seed, assignment.block
    if isinstance(assignment.input, list):
        return drawn(assignment.input, seed, block)
    path, wanted = assignment.images()
    testset, batch = load_testset(path), wanted.batch or 1
    # All models of a block see the same images in the same order.
    order = np.random.default_rng([seed, block]).permutation(len(testset.images))
    images = preprocess(testset.images[np.resize(order, max(DISTINCT, FEWEST * batch))], wanted)
    return [{wanted.name: images[start : start + batch]} for start in range(0, len(images) - batch + 1, batch)]


def drawn(inputs: Sequence[DrawnInput], seed: int, block: int) -> list[Feed]:
    """As many feeds as there is room for; inputs of the same name, type and shape get the same values in any file."""
    size = sum(math.prod(one.shape) * np.dtype(one.dtype).itemsize for one in inputs)
    count = max(FEWEST, min(DISTINCT, MOST_BYTES // max(1, size)))
    columns = [draw(one, count, seed, block) for one in inputs]
    return [dict(zip((one.name for one in inputs), values, strict=True)) for values in zip(*columns, strict=True)]


def draw(one: DrawnInput, count: int, seed: int, block: int) -> list[Array]:
    """The values of one input, `count` times; a longer row of them begins with the shorter one.

    What is drawn where no range is given: floating-point numbers are normal, since that is what normalised images and
    embeddings are like; 8-bit integers, which are mostly raw or quantised images, have their whole range; wider ones
    are 0 or 1: an index that every embedding table has, and the values of masks and token types.
    """
    name = f"{one.name} {one.dtype} {one.shape}"
    random = np.random.default_rng([seed, block, zlib.crc32(name.encode())])
    kind = np.dtype(one.dtype)
    if kind.kind == "b":
        return [random.integers(0, 2, one.shape).astype(kind) for _ in range(count)]
    if kind.kind == "f":
        if one.low is None or one.high is None:
            return [random.standard_normal(one.shape, np.float32).astype(kind) for _ in range(count)]
        return [random.uniform(one.low, one.high, one.shape).astype(kind) for _ in range(count)]
    low, high = integer_range(one)
    return [random.integers(low, high, one.shape, kind, endpoint=True) for _ in range(count)]


def integer_range(one: DrawnInput) -> tuple[int, int]:
    """The least and the largest integer that is drawn for an input."""
    if one.low is not None and one.high is not None:
        return int(one.low), int(one.high)
    limits = np.iinfo(one.dtype)
    return (limits.min, limits.max) if limits.bits == 8 else (0, 1)


def distinct(given: Sequence[Feed]) -> int:
    """How many of the feeds differ."""
    return len({b"".join(feed[name].tobytes() for name in sorted(feed)) for feed in given})
