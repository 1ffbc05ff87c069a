"""Every device of an engine is named."""

import pytest

from pdswitch.analysis.devices import device_name, devices_of

H100, H200 = "NVIDIA H100 80GB HBM3", "NVIDIA H200"


def engine(*names: str | None, device: str = H100) -> dict:
    devices = [{"name": name, "uuid": f"GPU-{i}"} for i, name in enumerate(names)]
    return {"device": device, "hardware": {"cpu": "a processor", "devices": devices}}


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        (engine(H100), H100),
        (engine(H100, H100), f"2 × {H100}"),
        (engine(H100, H200), f"{H100} + {H200}"),
        (engine(H200, H100, H200), f"2 × {H200} + {H100}"),
        (engine(None, None), f"2 × {H100}"),  # NVML knows no name
        (engine(device="cpu"), "cpu"),
        ({"device": H100}, H100),  # an older record
    ],
)
def test_equal_devices_are_counted_and_others_named_each(environment, name):
    assert device_name(environment) == name


def test_a_sweep_on_two_devices_is_one_entry_with_both():
    (found,) = devices_of([{"engine": engine(H100, H100), "rep": rep} for rep in (1, 2, 2)])
    assert found["name"] == f"2 × {H100}"
    assert found["ids"] == ["GPU-0", "GPU-1"]
    assert (found["runs"], found["blocks"]) == (3, [1, 2])
