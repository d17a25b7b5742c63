"""How fast are the same calls where the C library keeps freed memory?

These are the rows with at least 2**24 elements of the sections on forward calls and on copies, in a process whose C
library does not return freed memory to the system (`MALLOC_MMAP_THRESHOLD_=4294967296
MALLOC_TRIM_THRESHOLD_=17179869184` in the environment). Then no pages have to be zeroed, and what remains is the
kernel. Set these variables, or preload an allocator that keeps freed memory, where large tensors are made in a loop.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from side_by_side import Row

# Without these, glibc maps every output above 32 MB anew, and the system zeroes it page by page as it is written.
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


def rows() -> list[Row]:
    command = [sys.executable, str(Path(__file__).parent), "--json", "forward", "against_copy"]
    done = subprocess.run(command, env=os.environ | KEEP, capture_output=True, text=True, check=True)
    table = [Row(**row) for row in json.loads(done.stdout)]
    return [row for row in table if "2**24" in row.case or "2**26" in row.case]
