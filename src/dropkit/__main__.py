"""`python -m dropkit`: the command line."""

import os
import sys

if not getattr(sys.flags, "safe_path", False):
    # Python puts the working directory first, so that a checked project's own json.py or click.py would be run. The
    # folder of the `dropkit` script stands there otherwise; commands that import the user's code add its folder.
    sys.path[0] = os.path.dirname(sys.executable)

from dropkit.cli import main

main()
