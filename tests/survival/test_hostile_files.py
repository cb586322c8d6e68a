import random
from pathlib import Path

import pytest

from harness.errors import HarnessError
from tests.survival.fuzzing import Verdict, unclear
from tests.survival.subjects import files, samples, traps


def test_a_sound_file_of_every_kind_is_read(tmp_path: Path) -> None:
    for sample in samples(tmp_path):
        sample.read(sample.path)


def test_a_damaged_file_is_read_or_named_in_one_line(tmp_path: Path) -> None:
    verdict = Verdict()
    files(tmp_path, 300, random.Random(0), verdict)
    assert not verdict.faults, "\n".join(verdict.faults)
    assert verdict.taken and verdict.refused and verdict.inputs == 300


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    attempts, trace = traps(tmp_path)
    for what, attempt in attempts:
        with pytest.raises(HarnessError) as raised:
            attempt()
        assert not unclear(str(raised.value)), what
        assert not trace.exists(), what
