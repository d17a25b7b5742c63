"""Print mask-v1.json, computed by the oracle. The file is frozen with version 1 of the specification."""

import itertools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import oracle

KEYS = [0, 1, -1, 7, 2**63 - 1, -(2**63), 0x0123456789ABCDEF]
FIRST = [0, 1, 2, 3, 61, 2**32 - 3, 2**34 - 7, 2**40 + 5]
RATES = [0.1, 0.5, 0.9, 2**-32, 1 - 2**-32]
NUMBERS = [0, 1, 2, -1, 2**32, 2**63 - 1]

masks = [
    {"key": key, "first": first, "p": p, "n": 128, "keep": oracle.keep_bits(first, 128, key, p)}
    for key, first, p in itertools.product(KEYS, FIRST, RATES)
]
derived = [{"key": key, "n": n, "fold_in": oracle.fold_in(key, n)} for key, n in itertools.product(KEYS, NUMBERS)]
rows = {"masks": masks, "derived keys": derived}
body = ",\n".join(f'"{name}": [\n' + ",\n".join(map(json.dumps, table)) + "\n]" for name, table in rows.items())
print("{\n" + body + "\n}")
