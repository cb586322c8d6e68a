"""How much memory there is, for whoever plans with it: the machine's, as far as our control groups allow."""

import os

from harness.host import cgroups


def machine_bytes() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def total_bytes() -> int:
    """Bytes of memory that this process and its children may use at most."""
    limit = cgroups.limits()["memory_bytes"]
    return machine_bytes() if limit is None else min(machine_bytes(), limit)
