"""What the self-checks before the runs of a sweep say of the machine, summed up."""

from collections.abc import Iterable
from typing import Any


def disturbances(facts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return how many self-checks found the machine disturbed, and the worst of them.

    Args:
        facts: content of the `run.json` of each run. Runs that began within a minute of each other
            share a check, which counts once. Older records have none.

    Returns:
        `checks`, `disturbed`, and `worst`, the check with the largest spread of those with a
        warning (see `pdswitch.engine.self_check.judge`), None without one.
    """
    found = [one["conditions"].get("self_check") for one in facts]
    checks = {check["checked_at"]: check for check in found if check}
    disturbed = [check for check in checks.values() if check["warnings"]]
    return {
        "checks": len(checks),
        "disturbed": len(disturbed),
        "worst": max(disturbed, key=_largest_spread, default=None),
    }


def _largest_spread(check: dict[str, Any]) -> float:
    return max((step["spread"] for step in check["decode"]), default=0.0)
