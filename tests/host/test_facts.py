from collections.abc import Callable
from pathlib import Path

import pytest

from harness.host.facts import (
    activity,
    caches,
    disturbances,
    environment,
    parse_cpuinfo,
    steal_pct,
    turbo,
)

Tree = Callable[[dict[str, str]], Path]
I9 = "processor\t: 0\nmodel name\t: Intel(R) Core(TM) i9-9900K CPU @ 3.60GHz\nflags\t\t: fpu sse2 avx2 fma\n"
XEON = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Processor\nflags\t: avx2 avx512f amx_bf16 hypervisor\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd sve\n\nprocessor\t: 1\nFeatures\t: fp\n"


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (I9, {"cpu": "Intel(R) Core(TM) i9-9900K CPU @ 3.60GHz", "isa": ["avx2", "fma"], "virtualised": False}),
        (XEON, {"cpu": "Intel(R) Xeon(R) Processor", "isa": ["avx2", "avx512f", "amx_bf16"], "virtualised": True}),
        (ARM, {"cpu": "unknown", "isa": ["asimd", "sve"], "virtualised": False}),
        ("", {"cpu": "unknown", "isa": [], "virtualised": False}),
    ],
)
def test_the_processor_is_recognised(text: str, facts: dict[str, object]) -> None:
    assert parse_cpuinfo(text) == facts


def test_caches_are_in_kib_without_the_instruction_cache(tree: Tree) -> None:
    sizes = [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2048K"), ("3", "Unified", "16M")]
    files = {
        f"cpu0/cache/index{index}/{name}": value
        for index, row in enumerate(sizes)
        for name, value in zip(("level", "type", "size"), row, strict=True)
    }
    assert caches(tree(files) / "cpu0") == {"L1d": 48, "L2": 2048, "L3": 16384}


@pytest.mark.parametrize(
    ("files", "on"),
    [
        ({"intel_pstate/no_turbo": "0\n"}, True),
        ({"intel_pstate/no_turbo": "1\n"}, False),
        ({"cpufreq/boost": "1\n"}, True),
        ({"cpufreq/boost": "0\n"}, False),
        ({"other": ""}, None),
    ],
)
def test_turbo_is_read_where_the_kernel_says(tree: Tree, files: dict[str, str], on: bool | None) -> None:
    assert turbo(tree(files)) is on


STAT = {"proc/stat": "cpu  100 0 100 700 0 0 0 100 50 0\ncpu0 1\n", "proc/loadavg": "0.25 0 0 1/9 9"}


def test_steal_is_the_share_of_all_time_without_counting_guests_twice(tree: Tree) -> None:
    before = activity(tree(STAT))
    assert (before["load_average"], before["ticks"], before["stolen_ticks"]) == (0.25, 1000, 100)
    after = before | {"ticks": 1200.0, "stolen_ticks": 110.0}
    assert steal_pct(before, after) == 5
    assert steal_pct(before, before) == 0


def pressure(some: int, full: int) -> str:
    """As the kernel writes it, in us. The time in which some task waited is what counts."""
    return f"some avg10=1.00 avg60=2.00 avg300=3.00 total={some}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={full}\n"


def busy(cpu: int, memory: int, swapped: tuple[int, int], slowed: list[int], khz: list[int]) -> dict[str, str]:
    """What a machine says after so much of each disturbance."""
    files = {
        "proc/pressure/cpu": pressure(cpu, 7),
        "proc/pressure/memory": pressure(memory, memory // 2),
        "proc/vmstat": f"nr_free_pages 5\npswpin {swapped[0]}\npswpout {swapped[1]}\npgfault 99\n",
    }
    for number, (count, clock) in enumerate(zip(slowed, khz, strict=True)):
        folder = f"sys/devices/system/cpu/cpu{number}"
        files[f"{folder}/thermal_throttle/core_throttle_count"] = f"{count}\n"
        files[f"{folder}/cpufreq/scaling_cur_freq"] = f"{clock}\n"
    return STAT | files


def test_disturbances_are_the_difference_of_two_activities(tree: Tree) -> None:
    before = activity(tree(busy(1_000_000, 5_000, (10, 20), [3, 0], [3_000_000, 4_000_000])))
    after = activity(tree(busy(3_500_000, 5_000, (15, 27), [4, 2], [2_000_000, 2_400_000])))
    assert disturbances(before, after) == {
        "thermal_throttles": 3,
        "swapped_pages": 12,
        "cpu_pressure_s": 2.5,
        "memory_pressure_s": 0,
        "mhz_before": 3500,
        "mhz_after": 2200,
    }


def test_a_quiet_machine_has_no_disturbances(tree: Tree) -> None:
    quiet = activity(tree(busy(9, 9, (9, 9), [9], [3_600_000])))
    found = disturbances(quiet, quiet)
    assert (found.pop("mhz_before"), found.pop("mhz_after")) == (3600, 3600)
    assert set(found.values()) == {0}


def test_a_machine_that_hides_everything_has_an_activity_all_the_same(tmp_path: Path) -> None:
    hidden = activity(tmp_path)
    assert {value for name, value in hidden.items() if name != "load_average"} == {0}
    found = disturbances(hidden, hidden)
    assert (found["mhz_before"], found["mhz_after"]) == (None, None)
    assert steal_pct(hidden, hidden) == 0


def test_this_machine_has_an_activity_that_does_not_run_backwards() -> None:
    before, after = activity(), activity()
    assert before.keys() == after.keys()
    passing = {"load_average", "khz"}
    assert all(after[name] >= value >= 0 for name, value in before.items() if name not in passing)


def test_this_machine_and_one_that_hides_everything_both_give_facts(tmp_path: Path) -> None:
    real, hidden = environment([0]), environment([0], tmp_path)
    assert real.keys() == hidden.keys()
    assert real["logical_cpus"] >= real["physical_cores"] >= 1
    assert (hidden["cpu"], hidden["governor"], hidden["caches_kib"]) == ("unknown", None, {})
