"""Which devices the runs of a sweep were measured on."""

from typing import Any


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
        names = [device["name"] for device in hardware["devices"]] or [hardware["cpu"]]
        ids = [device["uuid"] for device in hardware["devices"]]
        device = found.setdefault(
            (*names, *ids), {"name": " + ".join(names), "ids": ids, "runs": 0, "blocks": []}
        )
        device["runs"] += 1
        device["blocks"] = sorted({*device["blocks"], one["rep"]})
    return sorted(found.values(), key=lambda device: -device["runs"])


def mixed_blocks(devices: list[dict[str, Any]]) -> list[int]:
    """Return the blocks measured on more than one device: their k differ by the device too."""
    blocks = [block for device in devices for block in device["blocks"]]
    return sorted({block for block in blocks if blocks.count(block) > 1})
