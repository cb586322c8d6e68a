"""What a container that measures must be closed to.

Read from the container's own facts, by the bench before it measures and by the checks afterwards.
"""

from collections.abc import Mapping
from typing import Any

# Fact -> its value in a closed container, and what any other value means.
CLOSED: Mapping[str, tuple[Any, str]] = {
    "root": (False, "it runs as root"),
    "capabilities": ([], "it has capabilities: {}"),
    "no_new_privileges": (True, "it may gain privileges"),
    "read_only_root": (True, "its root file system can be written to"),
    "interfaces": ([], "it has a network: {}"),
    "engine_sockets": ([], "the engine's socket is in it: {}"),
    "writable_models": ([], "models can be written to: {}"),
    "writable_elsewhere": ([], "more than the result folders can be written to: {}"),
}


def openings(facts: Mapping[str, Any]) -> list[str]:
    """What is not closed, one sentence each; a missing fact is one of them."""
    found = [f"{name} is not on record" for name in (*CLOSED, "cpus", "memory_bytes", "asked") if name not in facts]
    if found:
        return found
    asked = facts["asked"]
    for name, (closed, words) in CLOSED.items():
        value = facts[name]
        if value != closed:
            found.append(words.format(", ".join(map(str, value)) if isinstance(value, list) else value))
    if facts["cpus"] != asked.get("cpus"):
        found.append(f"it may use CPUs {_cpus(facts['cpus'])}, not the chosen {_cpus(asked.get('cpus'))}")
    if facts["memory_bytes"] != asked.get("memory_bytes"):
        found.append(f"its memory limit is {facts['memory_bytes']} bytes, not {asked.get('memory_bytes')}")
    return found


def _cpus(cpus: Any) -> str:
    return ",".join(map(str, cpus)) if cpus else "none"
