"""No rule's work grows faster than the file: counted in calls, on programs of many shapes and two sizes."""

import json
from collections.abc import Callable
from cProfile import Profile
from dataclasses import replace

import pytest

from dropkit.diagnostics import CrossFileCondition, Edit
from dropkit.lint.engine.check_file import check
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.discovery import search
from dropkit.lint.engine.fixing import fix_bytes, fix_text
from dropkit.lint.engine.project import check_source
from dropkit.lint.engine.project_index import ClassSummary, ProjectIndex, summarize
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text, Unreadable
from dropkit.rules import RULES

# Beyond the numbers up to which rules look, where work has stopped growing faster; twice as much may take so much more.
SMALL, LARGE, SLACK = 70, 140, 1.4
HEAD = (
    "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
    "from torch.utils.checkpoint import checkpoint\n"
)


def repeat(n: int, *lines: str, indent: int = 8) -> str:
    return "".join(f"{' ' * indent}{line.replace('@', str(i))}\n" for i in range(n) for line in lines)


def net(forward: str, init: str = "", name: str = "Net", base: str = "nn.Module") -> str:
    return (
        f"{HEAD}\n\nclass {name}({base}):\n    def __init__(self, p=0.1, dropout=0.5):\n        super().__init__()\n"
        "        self.p, self.drop, self.norm, self.fc = p, nn.Dropout(p), nn.BatchNorm1d(8), nn.Linear(8, 8)\n"
        f"{init}\n    def forward(self, x):\n{forward}        return x\n"
    )


def chained(n: int, first: str, link: str) -> str:
    """`a0 = first`, then each name from the one before it."""
    links = (link.replace("@", str(i)).replace("%", str(i + 1)) for i in range(n))
    return f"        a0 = {first}\n" + "".join(f"        {one}\n" for one in links)


def classes(n: int, base: str, body: str) -> str:
    text = f"\n\nclass C%({base}):\n{body}"
    return "".join(text.replace("@", str(i)).replace("%", str(i + 1)) for i in range(n))


FORWARD = (
    "    def __init__(self, dropout=0.1):\n        super().__init__()\n        self.fc = nn.Linear(4, 4)\n"
    "        self.drop = nn.Dropout(dropout)\n        self.rate = dropout\n"
    "        self.rows = [C@() for _ in range(2)]\n"
    "    def forward(self, x):\n        return F.dropout(self.fc(x), 0.5)\n"
    "    def train(self, mode=True):\n        super().train(mode)\n"
)
SHORT = (
    "    def __init__(self, dropout):\n        self.drop = nn.Dropout(dropout)\n"
    "    def forward(self, x):\n        return F.dropout(x, 0.5)\n"
)
SHAPES: dict[str, Callable[[int], str]] = {
    "sums with itself": lambda n: net(
        "        z = torch.rand_like(x) < self.p\n" + repeat(n, "z = z + z") + "        x = x * z\n"
    ),
    "sums of dropouts": lambda n: net("        z = self.drop(x)\n" + repeat(n, "z = z + z") + "        x = z\n"),
    "dropouts in a row": lambda n: net(repeat(n, "x = F.dropout(x, 0.5)", "x = self.drop(F.relu(self.fc(x)))")),
    "masks": lambda n: net(repeat(n, "m = torch.rand_like(x)", "m = m < self.p", "x = x * m")),
    "unread locals": lambda n: net(repeat(n, "dropout_@ = config.dropout_@", "kwargs.pop('drop_rate_@', 0.1)")),
    "rates set in forward": lambda n: net(repeat(n, "if isinstance(m@, nn.Dropout): m@.p = 0.1", "self.drop.p = x")),
    "draws that skip": lambda n: net(repeat(n, "drop@ = torch.rand(1)", "if drop@ < self.p: x = x * 0")),
    "functions that ignore rates": lambda n: HEAD
    + "".join(f"\n\ndef f{i}(x, dropout):\n    return f{(i + 1) % n}(x, 0.1)\n" for i in range(n)),
    "fields": lambda n: f"{HEAD}from dataclasses import dataclass\n\n\n@dataclass\nclass Config:\n"
    + repeat(n, "dropout_@: float = 0.1", indent=4)
    + "".join(f"\n\ndef f{i}(config):\n    return config.width\n" for i in range(n)),
    "bernoulli": lambda n: net(repeat(n, "drop = torch.bernoulli(x)", "drop = drop + drop", "x = x * drop")),
    "aliases": lambda n: net(chained(n, "F.softmax(x, -1)", "a% = a@; x = self.drop(a%)")),
    "aliases in branches": lambda n: net(
        chained(n, "F.softmax(x, -1)", "if x: a% = a@\n        else: a% = a@") + f"        x = self.drop(a{n})\n"
    ),
    "conditional bindings": lambda n: net(repeat(n, "if x.a@: x = F.relu(x)", "y@ = self.drop(x)", "F.nll_loss(y@)")),
    "exits": lambda n: net(repeat(n, "if x.a@: return x", "x = F.dropout(x, 0.5)")),
    "elif": lambda n: net("        if x: pass\n" + repeat(n, "elif x.a@: x = F.dropout(x, 0.5)")),
    "conditionals": lambda n: net(
        "        x = " + "".join(f"F.dropout(x, 0.5) if x.a{i} else " for i in range(n)) + "x\n",
        "        self.q = " + "".join(f"nn.Dropout(0.5) if p > {i} else " for i in range(n)) + "None\n",
    ),
    "loops": lambda n: net(repeat(n, "for h in self.heads:", "    x = self.drop(x)", "    y = h(x)")),
    "one loop": lambda n: net("        for h in x:\n" + repeat(n, "x = self.drop(x)", "y@ = h(x)", indent=12)),
    "tries": lambda n: net(repeat(n, "try: x = F.dropout(x, 0.5)", "except ValueError: x = self.drop(x)")),
    "chains of methods": lambda n: net(
        f"        x = F.dropout(x{'.relu()' * n}, 0.5)\n        x{'.dropout(x).a' * n}\n"
    ),
    "chains of attributes": lambda n: net(f"        x = self.drop(x{'.dropout' * n})\n        x{'.model' * n}.eval\n"),
    "sums": lambda n: net(f"        x = x{' + F.dropout(x, 0.5)' * n}\n        x = x{' * torch.bernoulli(x)' * n}\n"),
    "chains of views": lambda n: net(
        f"        x = F.dropout(torch.sigmoid(x){'.view(8)' * n}, 0.5, inplace=True)\n"
        f"        x = F.dropout(torch.sigmoid(x){'[0:]' * n}, 0.5, inplace=True)\n"
    ),
    "deep hierarchy": lambda n: net("", name="C0") + classes(n, "C@", SHORT),
    "wide hierarchy": lambda n: net("", name="C0") + classes(n, "C0", SHORT),
    "diamonds": lambda n: net("", name="C0") + "".join(
        f"class L{i}(C{i}): pass\nclass R{i}(C{i}): pass\nclass C{i + 1}(L{i}, R{i}):\n" + SHORT for i in range(n)
    ),
    "cyclic bases": lambda n: HEAD + classes(n, "C@, nn.Module", SHORT) + f"\n\nclass C0(C{n}):\n    pass\n",
    "many bases": lambda n: HEAD + classes(n, "nn.Module", "    pass\n") + net(
        "", base=", ".join(f"C{i + 1}" for i in range(n))
    ),
    "many classes": lambda n: HEAD + classes(n, "nn.Module", FORWARD),
    "methods that call one another": lambda n: net("        x = self.m0(x)\n") + "".join(
        f"\n    def m{i}(self, x):\n        x = self.m{(i + 1) % n}(x) + self.m{(i * 7 + 3) % n}(x)\n"
        f"        drop = torch.bernoulli(x)\n        return F.dropout(x * drop, 0.5)\n" for i in range(n)
    ),
    "without super().__init__()": lambda n: HEAD + "\n\nclass Net(nn.Module):\n    def __init__(self):\n"
    + repeat(n, "self.m@()") + "        self.fc = nn.Linear(1, 1)\n"
    + "".join(f"    def m{i}(self):\n        self.m{(i + 1) % n}(); self.m{(i * 3) % n}()\n" for i in range(n)),
    "functions that call one another": lambda n: HEAD + "".join(
        f"\n\ndef h{i}(x):\n    x = h{(i + 1) % n}(x)\n    return F.dropout(x, 0.5)\n" for i in range(n)
    ) + net(repeat(n, "x = h@(x)", "x = checkpoint(h@, x, preserve_rng_state=False)")),
    "many attributes": lambda n: net(
        repeat(n, "x = self.e@(x)"),
        repeat(n, "self.d@ = nn.Dropout(p)", "self.e@ = nn.Dropout(0.2)", "self.r@ = nn.LSTM(8, 8, 1, dropout=p)"),
    ),
    "unused attributes": lambda n: net("", repeat(n, "self.d@ = nn.Dropout(0.1)", "getattr(self.fc, 'x@')")),
    "one attribute": lambda n: net(repeat(n, "x = self.d(x)"), repeat(n, "self.d = nn.Dropout(p)")),
    "unused rates": lambda n: HEAD + "class Net(nn.Module):\n    def __init__(self, "
    + ", ".join(f"drop{i}=0.1" for i in range(n)) + "):\n        super().__init__()\n" + repeat(n, "self.drop@ = drop@")
    + "    def forward(self, x):\n        return x\n",
    "rates of rates": lambda n: net(
        "        x = self.d(x)\n",
        chained(n, "p", "a% = a@ + a@") + f"        self.d, self.r = nn.Dropout(a{n}), nn.LSTM(8, 8, 1, dropout=a{n})\n"
        f"        self.unused = nn.Dropout(a{n})\n",
    ),
    "long Sequential": lambda n: HEAD + "model = nn.Sequential(\n" + repeat(
        n, "nn.Conv2d(8, 8, 3),", "nn.Dropout2d(0.1),", "nn.BatchNorm2d(8),", "nn.SELU(),", "nn.Dropout(0.1),",
        "nn.Dropout(0.1, inplace=True),", "nn.Dropout2d(0.3),", "nn.Identity(),"
    ) + ")\n",
    "plain containers": lambda n: net(
        "", repeat(n, "self.q@ = [nn.Dropout(0.1), Net()]", "l@ = []", "l@.append(nn.Dropout(0.1))", "self.z@ = l@")
        + "        self.s = " + " + ".join(["[nn.Dropout(0.1)]"] * n) + "\n"
    ),
    "functions in one class": lambda n: net("") + "".join(
        f"\n    def f{i}(self, x):\n        x = nn.Dropout(0.5)(x)\n        F.dropout(x)\n        self.drop(x)\n"
        f"        return x + self.drop(F.relu(x))\n" for i in range(n)
    ),
    "in place": lambda n: net(repeat(
        n, "y@ = F.dropout(x, 0.5, True, True)", "x = x + y@", "z = x",
        "x = F.dropout(torch.sigmoid(x), 0.5, self.training, inplace=True)"
    )),
    "attention": lambda n: net("        q = self.p\n" + repeat(
        n, "q = q if x.a@ else self.p", "x = F.scaled_dot_product_attention(x, x, x, dropout_p=q)"
    )),
    "modes of one model": lambda n: HEAD + "model = nn.Sequential(nn.Dropout(0.1))\n" + repeat(
        n, "model.training = False", "model.train()", "model.eval", indent=0
    ),
    "training loops": lambda n: HEAD + "model = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.1))\n"
    + "model = model.cuda()\n" * n + "opt = torch.optim.SGD(model.parameters())\nloss.backward()\nopt.step()\n"
    + repeat(n, "with torch.no_grad():", "    acc@ = model(x).sum()", indent=0),
    "outputs": lambda n: net(repeat(
        n, "y@ = self.drop(self.classifier(x))", "z@ = y@.view(y@, y@)", "w@ = F.log_softmax(z@ + z@)"
    ), "        self.classifier = nn.Linear(8, num_classes)\n"),
    "flags": lambda n: net(
        repeat(n, "flag = x.a@", "if flag: x = F.dropout(x, flag)", "if self.train: x = F.dropout(x)")
    ),
    "many imports": lambda n: repeat(n, "from torch import nn as n@", "from m@ import *", indent=0) + net(
        repeat(n, "x = nn.Dropout(0.5)(x)"), repeat(n, "self.q@ = [nn.Dropout(0.1), nn.Dropout(0.2)]")
    ),
    "options": lambda n: HEAD + repeat(
        n, "p.add_argument('--keep-prob@', default=0.1)", "nn.Dropout(args['keep_prob@'])", indent=0
    ),
}  # fmt: skip


def work(task: Callable[[], object]) -> int:
    """How many functions a task calls."""
    profile = Profile()
    profile.enable()
    try:
        task()
    finally:
        profile.disable()
    return sum(entry.callcount for entry in profile.getstats())


def works(source: str) -> dict[str, int]:
    """The work on a file: to read it, of each rule, to tell others of it."""
    text = Text(source.encode())
    found = {"read": work(lambda: read("file.py", text))}
    module = read("file.py", text)
    for rule in RULES:
        found[rule.code] = work(lambda: list(rule.diagnostics(module)))  # noqa: B023
    return {**found, "account": work(lambda: summarize(module))}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_twice_the_file_is_twice_the_work(shape):
    """Nor does any rule fail for depth."""
    small, large = shape(SMALL), shape(LARGE)
    allowed = SLACK * len(large) / len(small)
    before = works(small)

    grown = {name: (before[name], now) for name, now in works(large).items() if now > allowed * before[name] + 1000}

    assert grown == {}


def test_cross_file_conditions_take_linear_time():
    """Deep and cyclic hierarchies over files that import one another."""

    def asked(n: int) -> None:
        told = [
            ClassSummary(
                {f"C{i}": [f"C{(i + 1) % n}"]},
                {f"C{i}": ["x"]},
                untyped_calls=["model.drop"],
                imports=[f"C{(i + 2) % n}"],
            )
            for i in range(n)
        ]
        index = ProjectIndex(told)
        assert all(index.satisfies(CrossFileCondition(f"C{i}", "drop")) for i in range(n))

    assert work(lambda: asked(800)) < 2.8 * work(lambda: asked(400))


@pytest.mark.parametrize("shape", ["dropouts in a row", "sums", "elif"])
def test_fixes_are_tried_together(shape):
    """Trying each alone would parse the whole file for each fix."""

    def mend_all(n: int) -> None:
        data = SHAPES[shape](n).encode()
        fixed, done = fix_bytes(data, check_source("file.py", data, Config()).findings, Config(), unsafe=False)
        assert len(done) >= n
        assert check_source("file.py", fixed, Config()).fixable == 0

    assert work(lambda: mend_all(100)) < 2.8 * work(lambda: mend_all(50))


def test_twice_the_cells_are_twice_the_work():
    """To check a notebook and to have the text of each finding at hand."""

    def check_cells(n: int) -> None:
        source = net("        x = F.dropout(x, 0.5)\n") + "# a line\n" * 100
        cells = [{"cell_type": "code", "source": source}] * n
        outcome = check_source("file.ipynb", json.dumps({"cells": cells}).encode(), Config())
        assert len(outcome.texts) == n

    assert work(lambda: check_cells(80)) < 2.4 * work(lambda: check_cells(40))


def nested(folder, n: int) -> None:
    """Folders in one another, each with patterns of its own."""
    for number in range(n):
        folder.joinpath(".gitignore").write_text(f"a{number}\n*.b{number}\n/c{number}/d\n")
        folder.joinpath("file.py").touch()
        folder = folder / "f"
        folder.mkdir()


def wide(folder, n: int) -> None:
    """Many files and many patterns for their names."""
    folder.joinpath(".gitignore").write_text("".join(f"a{i}*b*c\n*b{i}.x\n/d{i}.py\n" for i in range(n)))
    for number in range(n):
        folder.joinpath(f"a{number}.py").touch()


@pytest.mark.parametrize("make", [nested, wide])
def test_patterns_of_files_that_git_ignores_are_not_compared_with_every_name(tmp_path, make):
    """Twice the folders and patterns are twice the work."""
    for name, n in (("small", 40), ("large", 80)):
        (tmp_path / name / ".git").mkdir(parents=True)
        make(tmp_path / name, n)

    exclude = ("third/party", "gen/*", "*_pb2.py")
    small, large = (
        work(lambda: search([str(tmp_path / name)], Config(exclude=exclude)))  # noqa: B023
        for name in ("small", "large")
    )

    assert large < 2.5 * small


def test_a_wrong_fix_does_not_prevent_the_others():
    """One that leaves the finding as it was, among many that do not."""
    source = SHAPES["dropouts in a row"](40)
    findings = [one for one in check_source("file.py", source.encode(), Config()).findings if one.code == "DRP101"]
    bad = replace(findings[17], fix=replace(findings[17].fix, edits=(Edit(0, 0, "# nothing\n"),)))
    worse = replace(findings[30], fix=replace(findings[30].fix, edits=(replace(findings[30].fix.edits[0], text=")"),)))
    given = [bad if one is findings[17] else worse if one is findings[30] else one for one in findings]

    text, taken = fix_text("file.py", Text(source.encode()), given, RULES)

    assert len(taken) == 38
    assert text.utf8.count(b"training=self.training") == 38


@pytest.mark.parametrize("depth", [190, 2500])
def test_depth_fails_no_rule(depth):
    """Rules accept whatever nesting the parser accepts: sums, chains, conditionals, brackets and blocks."""
    few, brackets = min(depth, 90), min(depth, 180)
    sums = f"{' + F.dropout(x)' * depth}\n        x = x{' * drop' * depth}\n        x = self.drop(x{'.a' * depth})\n"
    choices, lists = "nn.Dropout(p) if p else " * depth, "[] + " * depth
    ifs = "".join(f"{' ' * (8 + i)}if x:\n" for i in range(few))
    sources = [
        net(f"        x = x{sums}"),
        net(f"        x{'.model' * depth}.eval\n", f"        self.q = {lists}[nn.Dropout(0.1)]\n"),
        net(f"        x = self.drop(x{'.relu()' * depth})\n", f"        self.q = {choices}None\n"),
        net(f"        x = {'x if x else ' * depth}F.dropout(x)\n"),
        net("        if x: pass\n" + "        elif x: x = self.drop(F.dropout(x))\n" * depth),
        net(f"        x = {'self.drop(' * brackets}x{')' * brackets}\n"),
        net(f"{ifs}{' ' * (8 + few)}x = F.dropout(x)\n"),
        net(f"        x = {'not ' * depth}F.dropout(x)\n        F.dropout(x, {'-' * depth}1)\n"),
        net("", name="Switch") + "    def train(self, mode=True):\n        if mode: return\n"
        + "        elif mode: self.drop.eval()\n" * depth,
    ]  # fmt: skip
    for source in sources:
        try:
            module = read("file.py", Text(source.encode()))
        except Unreadable:
            continue
        assert isinstance(check(module, RULES), list)
        summarize(module)
