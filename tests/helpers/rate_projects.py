"""Projects of several files about rates that nothing reads, and the findings in them."""

from helpers.lint import codes

from dropkit.lint.engine.config import Config
from dropkit.lint.engine.project import check_paths

HEAD = "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n\n"


def net(made="", forward="return self.fc(x)", arguments="width, dropout=0.1", above="", decorator="", base="nn.Module"):
    made = "".join(f"\n        {line}" for line in made.split("\n") if line)
    mark = f"    {decorator}\n" if decorator else ""
    return f"""{above}
class Net({base}):
{mark}    def __init__(self, {arguments}):
        super().__init__()
        self.fc = nn.Linear(3, 3){made}

    def forward(self, x):
        {forward}
"""


def found(folder, files):
    (folder / "pyproject.toml").write_text("")
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return codes(check_paths([str(folder)], Config(root=folder)))
