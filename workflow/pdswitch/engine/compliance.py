"""Whether an engine is what its spec asks for."""

from typing import Any

from pdswitch.engine.environment import additions, losses


def departures(engine: dict[str, Any]) -> list[str]:
    """Return in what an engine is not what its spec asks for, one sentence each.

    Args:
        engine: facts of the engine, see `VllmEngine.describe`, or from an older `run.json`.
    """
    if "workers" not in engine:
        return [
            "the record does not say which threads and environment the engine had; measure it again"
        ]
    asked, reasons = engine["asked"], []
    for name, words in (("torch_threads", "torch threads"), ("cores", "cores")):
        found = {worker[name] for worker in engine["workers"]} - {asked[name]}
        if asked[name] is not None and found:
            reasons.append(f"the engine has {max(found)} {words}, {asked[name]} asked for")
    variables = asked["environment"], engine["environment"]
    if added := additions(*variables):
        reasons.append(f"the engine has variables that nobody asked for: {', '.join(added)}")
    if lost := losses(*variables):
        reasons.append(f"the engine lacks variables or has others' values: {', '.join(lost)}")
    return reasons
