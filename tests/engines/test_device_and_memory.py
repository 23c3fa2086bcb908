"""Where engines compute, and what they do when memory runs out."""

import pytest

torch = pytest.importorskip("torch")

from napari_medreasoner.core.errors import MemoryShortageError, SettingsError  # noqa: E402
from napari_medreasoner.engines.device import arithmetic, device_of, dtype_of  # noqa: E402
from napari_medreasoner.engines.memory import memory_guard  # noqa: E402
from napari_medreasoner.engines.options import EngineOptions  # noqa: E402

FAR_TOO_MUCH = 2**50


def test_device_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_of(EngineOptions(device="cpu")) == torch.device("cpu")
    assert dtype_of(EngineOptions(), torch.device("cpu")) is torch.float32
    assert dtype_of(EngineOptions(), torch.device("cuda")) is torch.bfloat16
    assert dtype_of(EngineOptions(dtype="float16"), torch.device("cuda")) is torch.float16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(EngineOptions()).type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(EngineOptions()).type == "cuda"


@pytest.mark.parametrize(
    ("device", "there", "said"),
    [
        ("cuda", 0, "finds no CUDA device here; use --device cpu"),
        ("cuda:0", 0, "finds no CUDA device"),
        ("cuda:1", 1, '"cuda:1" was asked for, but torch .* finds 1 CUDA device here'),
        ("cuda:2", 2, "finds 2 CUDA devices here"),
        ("gpu", 1, '"gpu" is not a device'),
        ("meta", 1, '"meta" is not a device'),
        ("", 1, '"" is not a device'),
    ],
)
def test_devices_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, device: str, there: int, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises(SettingsError, match=said):
        device_of(EngineOptions(device=device))


def test_arithmetic_keeps_weights_and_changes_results() -> None:
    layer = torch.nn.Linear(4, 4)
    with arithmetic(torch.device("cpu"), torch.bfloat16):
        made = layer(torch.ones(1, 4))
        assert made.dtype is torch.bfloat16
        assert not made.requires_grad
    assert layer.weight.dtype is torch.float32
    with arithmetic(torch.device("cpu"), torch.float32):
        assert layer(torch.ones(1, 4)).dtype is torch.float32


def test_memory_that_runs_out_is_tried_again_with_less() -> None:
    tried = []

    def work() -> int:
        tried.append("work")
        torch.empty(FAR_TOO_MUCH)  # what torch says when the machine's own memory runs out
        return 1

    def smaller() -> int:
        tried.append("smaller")
        return 2

    assert memory_guard("Encoding", smaller, work) == 2
    assert memory_guard("Encoding", work, smaller) == 2
    assert tried == ["smaller", "work", "smaller"]
    tried.clear()
    with pytest.raises(MemoryShortageError, match=r"^Encoding needs more memory .* --device cpu"):
        memory_guard("Encoding", work)
    assert tried == ["work", "work"]


@pytest.mark.parametrize("shortage", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_every_kind_of_shortage_is_known(shortage: Exception) -> None:
    def work() -> None:
        raise shortage

    with pytest.raises(MemoryShortageError):
        memory_guard("Encoding", work)


def test_other_faults_are_not_taken_for_a_shortage() -> None:
    def work() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        memory_guard("Encoding", work)


def test_what_the_first_try_held_is_free_in_the_second() -> None:
    import gc
    import weakref

    held = []

    def work() -> None:
        mine = torch.ones(1000)
        held.append(weakref.ref(mine))
        torch.empty(FAR_TOO_MUCH)

    def smaller() -> bool:
        return held[0]() is None

    gc.disable()
    try:
        assert memory_guard("Encoding", work, smaller)
    finally:
        gc.enable()
