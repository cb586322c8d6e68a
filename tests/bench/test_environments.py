import sys
from pathlib import Path

import pytest

from harness.bench import environments
from harness.bench.environments import bench_python, find_python
from harness.bench.process import ask_engine
from harness.errors import HarnessError

ENGINE = "onnxruntime-1.16.0"


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a checkout without environments."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(environments, "ROOT", tmp_path / "checkout")
    return tmp_path


def test_an_environment_is_looked_for_here_and_then_in_the_checkout(nowhere: Path) -> None:
    assert find_python(ENGINE) is None
    with pytest.raises(HarnessError, match=r"^\.venvs/bench-1\.16\.0/bin/python: not there; run: make setup$"):
        bench_python(ENGINE)
    for place in ("checkout", "here"):
        python = nowhere / place / ".venvs/bench-1.16.0/bin/python"
        python.parent.mkdir(parents=True)
        python.touch()
        assert find_python(ENGINE) == bench_python(ENGINE) == python


def test_an_engine_of_this_python_is_whichever_version_it_has(nowhere: Path) -> None:
    import onnxruntime

    assert find_python("onnxruntime-here") == Path(sys.executable)
    assert ask_engine("onnxruntime-here", None, [1]).runtime == f"onnxruntime {onnxruntime.__version__}"
