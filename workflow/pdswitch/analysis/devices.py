"""Which devices the runs of a sweep were measured on."""

from collections import Counter
from typing import Any


def device_name(environment: dict[str, Any]) -> str:
    """Name all devices of an engine, equal ones together: ``2 × NVIDIA H100``.

    Args:
        environment: facts of the engine. Without a name from NVML, vLLM's name for the first
            device stands for each; older records have only that.
    """
    first = environment.get("device", "unknown")
    devices = environment.get("hardware", {}).get("devices", [])
    names = Counter(device["name"] or first for device in devices)
    parts = [name if count == 1 else f"{count} × {name}" for name, count in names.items()]
    return " + ".join(parts) or str(first)


def devices_of(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the devices of these runs, the one with the most runs first.

    Args:
        facts: content of the `run.json` of each.

    Returns:
        of each device `name`, `ids` (of NVIDIA devices; empty on a CPU, so that two alike count as
        one), `runs`, and `blocks`, the repeats that have a run on it. An engine on several devices
        counts as one.
    """
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in facts:
        hardware = one["engine"]["hardware"]
        name = device_name(one["engine"]) if hardware["devices"] else hardware["cpu"]
        ids = [device["uuid"] for device in hardware["devices"]]
        device = found.setdefault((name, *ids), {"name": name, "ids": ids, "runs": 0, "blocks": []})
        device["runs"] += 1
        device["blocks"] = sorted({*device["blocks"], one["rep"]})
    return sorted(found.values(), key=lambda device: -device["runs"])


def blocks_on_several_devices(devices: list[dict[str, Any]]) -> list[int]:
    """Return the blocks measured on more than one device: their k differ by the device too."""
    blocks = [block for device in devices for block in device["blocks"]]
    return sorted({block for block in blocks if blocks.count(block) > 1})
