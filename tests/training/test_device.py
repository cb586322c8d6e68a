from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.host import cgroups
from harness.training import device
from harness.training.device import Device, choose_device, cpu_name, emulates_bf16
from tests.training_kit import CPU


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Calls that would tell glibc to keep its memory for the rest of the test run."""
    calls: list[None] = []
    monkeypatch.setattr(device, "_keep_freed_memory", lambda: calls.append(None))
    return calls


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_precision_is_the_one_asked_for_whatever_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, precision: str, native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    chosen = choose_device(precision, cuda=False)
    assert chosen == Device(torch.device("cpu"), bf16=precision == "bf16")
    assert emulates_bf16(chosen) == (precision == "bf16" and not native)


def test_on_a_cpu_freed_memory_is_kept(kept: list[None]) -> None:
    choose_device("fp32", cuda=False)
    assert len(kept) == 1


@pytest.mark.parametrize(("quota", "threads"), [("max", 4), ("250000", 2), ("800000", 4), ("30000", 1)])
def test_there_are_no_more_threads_than_a_quota_of_cpu_time_has_work_for(
    tree: Callable[[dict[str, str]], Path], monkeypatch: pytest.MonkeyPatch, quota: str, threads: int
) -> None:
    group = {"proc/self/cgroup": "0::/here\n", "sys/fs/cgroup/here/cpu.max": f"{quota} 100000"}
    monkeypatch.setattr(cgroups, "limits", partial(cgroups.limits, tree(group)))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        choose_device("fp32", cuda=False)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_without_a_gpu_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("fp32").torch.type == "cpu"


@pytest.mark.parametrize("bf16", [False, True])
def test_forward_passes_run_in_the_precision_and_weights_stay_in_fp32(bf16: bool) -> None:
    layer = nn.Linear(4, 4)
    with Device(torch.device("cpu"), bf16).autocast():
        seen = layer(torch.zeros(1, 4)).dtype
    assert seen == (torch.bfloat16 if bf16 else torch.float32)
    assert layer.weight.dtype == torch.float32


def test_placing_a_network_changes_its_layout_and_not_its_output() -> None:
    last = nn.Conv2d(64, 32, 3)
    model = nn.Sequential(nn.Conv2d(3, 64, 3), last)
    image = torch.randn(1, 3, 8, 8)
    before = model(image)
    CPU.place(model)
    assert last.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(image), before)


def test_the_facts_name_the_device_the_precision_and_the_libraries() -> None:
    facts = CPU.facts()
    assert facts["device"] == cpu_name() != "" and facts["device_type"] == "cpu"
    assert facts["precision"] == "fp32" and facts["threads"] == torch.get_num_threads()
    assert facts["torch"].startswith("2.") and facts["torch-pruning"] and facts["onnxruntime"]


def test_there_is_no_waiting_for_a_cpu() -> None:
    CPU.synchronize()
