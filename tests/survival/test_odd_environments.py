"""What shells, services and notebooks leave in the environment, and what a caller does to a command's streams."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import environment
from tests.documents import ROOT
from tests.finished import finish


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished profile, whose tables have letters of every kind."""
    folder = tmp_path_factory.mktemp("odd")
    finish(folder)
    shutil.copy(ROOT / "matrix.toml", folder)
    return folder


def run(folder: Path, shell: str, **variables: str | bytes) -> subprocess.CompletedProcess[str]:
    """A shell line in the folder; `$H` is the harness."""
    inherited = {name: value for name, value in environment().items() if name not in ("LANG", "LC_ALL", "LC_CTYPE")}
    return subprocess.run(
        ["sh", "-c", shell],
        cwd=folder,
        env={**inherited, "H": f"{sys.executable} -m harness", **variables},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "no_SUCH.locale"},
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MPLCONFIGDIR": "/proc/none"},
        {"TMPDIR": "/none", "COLUMNS": "many", "TERM": "none"},
        {"HOME": "", "USER": "", "XDG_CONFIG_HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none"},
        {"PYTHONWARNINGS": "error", "PYTHONHASHSEED": "0", "PYTHONOPTIMIZE": "2"},
        {"DATA_DIR": b"/x\xff\xfe", "OMP_NUM_THREADS": "many", "CUDA_VISIBLE_DEVICES": "none of them"},
        {"DATA_DIR": "/" + "a" * 300, "PYTHONSTARTUP": "/none", "PYTHONDONTWRITEBYTECODE": "1"},
    ],
    ids=lambda variables: "-".join(variables),
)
def test_a_shell_of_any_kind_gets_an_answer_and_no_traceback(folder: Path, variables: dict[str, str | bytes]) -> None:
    drawn = {"PYTHONIOENCODING", "MPLBACKEND", "HOME"} & variables.keys()
    done = run(folder, f"$H {'report' if drawn else 'plan'} --profile lite", **variables)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "P(0.3_BN)_KD(0)_SEED(0)" in done.stdout


@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ("$H status --profile lite >&-", 0),
        ("$H status --profile none 2>&-", 2),
        ("$H status --profile lite > /dev/full", 2),
        ("$H plan --profile lite | head -1", 0),
        ("$H plan --profile lite < /dev/null", 0),
        ("mkdir gone && cd gone && rmdir ../gone && $H status --profile lite", 2),
        ("$H plan --profile lite --matrix /dev/zero", 2),
        ("rm -f fifo; mkfifo fifo; $H plan --profile lite --matrix fifo", 2),
        ("rm -f fifo; mkfifo fifo; $H report --profile lite --document fifo", 2),
        ("$H report --profile lite --document .", 2),
        ("$H plan --profile lite --matrix $(printf '%0300d' 0)", 2),
        ("$H status --profile lite --results $(printf '%0300d' 0)", 2),
        ("$H merge --profile lite $(printf '%05000d' 0)", 2),
        ("$H latency /dev/zero", 2),
        ("$H export --torch-file /dev/zero --out-file x.onnx", 2),
        ("$H unpack --profile lite matrix.toml", 2),
    ],
)
def test_odd_streams_and_files_are_one_line(folder: Path, shell: str, code: int) -> None:
    done = run(folder, shell)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    if code and "2>&-" not in shell:
        *_, last = done.stderr.strip().splitlines()
        assert last.startswith("error: ") and len(last) < 1000, last


def test_a_user_without_a_home_or_a_name_measures_and_reports(folder: Path) -> None:
    stranger = ["unshare", "--user", "--map-user=12345", "env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME"]
    if subprocess.run([*stranger, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not become another one (unshare --user)")
    command = [*stranger, sys.executable, "-m", "harness", "report", "--profile", "lite"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root sees whether a folder that may not be written to is noticed")
def test_a_read_only_folder_is_one_line(folder: Path, tmp_path: Path) -> None:
    inside = f"mount --bind {folder} {tmp_path} && mount -o remount,bind,ro {tmp_path} && cd {tmp_path}"
    for verb in ("status", "report", "bench"):
        line = f"{inside} && exec {sys.executable} -m harness {verb} --profile lite --runner local"
        line = line if verb == "bench" else line.replace(" --runner local", "")
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", line], env=environment(), capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr, (verb, done.stderr)
        *_, last = done.stderr.strip().splitlines() or [""]
        assert done.returncode == (0 if verb == "status" else 2), (verb, done.stderr)
        assert verb == "status" or last.startswith("error: "), (verb, last)
