"""How much memory there is, for whoever plans with it: the machine's, as far as our control groups allow."""

import psutil

from harness.host import cgroups


def total_bytes() -> int:
    """Bytes of memory that this process and its children may use at most."""
    whole: int = psutil.virtual_memory().total
    limit = cgroups.limits()["memory_bytes"]
    return whole if limit is None else min(whole, limit)


def free_bytes() -> int:
    """Bytes of memory that this process may still take."""
    available: int = psutil.virtual_memory().available
    limited = cgroups.free_memory()
    return available if limited is None else min(available, limited)
