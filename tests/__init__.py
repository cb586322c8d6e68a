"""The tests. Each process of theirs, and each that they start, computes with one thread.

Several run at once, and threads that wait for one another while others have the cores take many times as long.
"""

import os

# before torch is imported, which reads it once
os.environ["OMP_NUM_THREADS"] = "1"
# Each of the many processes would compile the package's modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
