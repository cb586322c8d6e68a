import pytest
import torch
from torch import nn

from harness.training import device
from harness.training.device import Device, choose_device
from tests.training_kit import CPU


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Calls that would tell glibc to keep its memory for the rest of the test run."""
    calls: list[None] = []
    monkeypatch.setattr(device, "_keep_freed_memory", lambda: calls.append(None))
    return calls


@pytest.mark.parametrize(
    ("precision", "native", "bf16"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("fp32", True, False),
        ("bf16", False, True),
    ],
)
def test_bf16_where_asked_for_or_native(
    monkeypatch: pytest.MonkeyPatch, precision: str, native: bool, bf16: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    assert choose_device(precision, cuda=False) == Device(torch.device("cpu"), bf16)


def test_the_cpu_keeps_its_memory(kept: list[None]) -> None:
    choose_device("fp32", cuda=False)
    assert len(kept) == 1


def test_without_a_gpu_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("fp32").torch.type == "cpu"


@pytest.mark.parametrize("bf16", [False, True])
def test_autocast_is_for_forward_passes_of_the_precision(bf16: bool) -> None:
    layer = nn.Linear(4, 4)
    with Device(torch.device("cpu"), bf16).autocast():
        seen = layer(torch.zeros(1, 4)).dtype
    assert seen == (torch.bfloat16 if bf16 else torch.float32)
    assert layer.weight.dtype == torch.float32


def test_placing_a_network_changes_its_layout_and_not_its_answer() -> None:
    last = nn.Conv2d(64, 32, 3)
    model = nn.Sequential(nn.Conv2d(3, 64, 3), last)
    image = torch.randn(1, 3, 8, 8)
    before = model(image)
    CPU.place(model)
    assert last.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(image), before)


def test_the_facts_say_what_a_reader_needs() -> None:
    facts = CPU.facts()
    assert facts["device"] and facts["device_type"] == "cpu"
    assert facts["precision"] == "fp32" and facts["threads"] == torch.get_num_threads()
    assert facts["torch"].startswith("2.") and facts["torch-pruning"] and facts["onnxruntime"]


def test_waiting_for_the_cpu_is_nothing() -> None:
    CPU.synchronize()
