"""The private names of torch that dropkit uses: each is looked up in this package, and no other file reaches one.

torch renames and adds private names from release to release. Each is looked up with the feature that needs it and with
what happens without it: a substitute that is slower or uses a public name, with a warning if the cost is noticeable; or
the feature raises `UnsupportedTorchError`, and everything else works.
"""

# ruff: noqa: F403 (every public name of the files, which a list would only repeat)
from dropkit.torch_private.audit import *
from dropkit.torch_private.checkpoint import *
from dropkit.torch_private.compilers import *
from dropkit.torch_private.dtensor import *
from dropkit.torch_private.eager import *
from dropkit.torch_private.install import *
from dropkit.torch_private.lookup import *
from dropkit.torch_private.modules import *
from dropkit.torch_private.monte_carlo import *
from dropkit.torch_private.operators import *
from dropkit.torch_private.transforms import *
