"""Each optional package belongs to an extra, and where it is missing the error says the command."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from email import message_from_string
from pathlib import Path

import pytest
import torch

import dropkit
from dropkit import extras

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
# What dropkit itself depends on, and torch, without which only the linter runs.
ALWAYS = {*sys.stdlib_module_names, "click", "dropkit", "rich", "tomli", "torch"}
# Modules that import an optional package at their top, or are given its objects: who loads them has checked for it.
GUARDED = {
    "arrays.py": "numpy",  # an array is there
    "kernels/gpu": "triton",  # dropkit.kernels.gpu.missing
    "lint/engine/language_server.py": "lsprotocol pygls",  # cli/server.py
    "lint/engine/lsp_errors.py": "pygls",  # language_server.py
    "mc/batch_stream.py": "numpy",  # a frame is there
    "mc/maps.py": "matplotlib",  # views.py
    "mc/sklearn.py": "numpy",  # dropkit.mc
    "mc/sklearn_base.py": "numpy",  # dropkit.mc
    "pytest_plugin.py": "pytest",  # which loads it
    "report/panel.py": "matplotlib numpy",  # its _style
    "studies/journal.py": "optuna",  # storage.py
    "studies/racing.py": "optuna",  # storage.py
    "studies/readers/hugging_face.py": "huggingface_hub",  # a part of datasets
    "studies/search.py": "optuna",  # storage.py
    "studies/storage.py": "sqlalchemy",  # a part of Optuna
    "studies/trial_log.py": "filelock",  # a part of torch
    "studies/workers.py": "loky",  # in its processes
}


def declared() -> dict[str, list[str]]:
    """The requirements of each extra, as they are written in pyproject.toml."""
    table = PYPROJECT.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    entries = re.findall(r"^(\w+) = \[(.*?)\]$", table, re.MULTILINE | re.DOTALL)
    return {name: re.findall(r'"(.+?)"', requirements) for name, requirements in entries}


def packages(extra: str) -> set[str]:
    """The names of what an extra installs, with that of the extras it names."""
    found: set[str] = set()
    for requirement in declared()[extra]:
        if requirement.startswith("dropkit["):
            found = found.union(*map(packages, requirement[8:-1].split(",")))
        else:
            found.add(re.match(r"[\w-]+", requirement)[0])  # type: ignore[index]
    return found


def imports(node: ast.AST, what: ast.expr | None = None) -> Iterator[tuple[str, ast.expr | None]]:
    """The packages that a module imports when it runs, each with the call of `needed_for` around it."""
    for child in ast.iter_child_nodes(node):
        guard = what
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.With) and "needed_for(" in ast.unparse(child.items[0]):
            guard = child.items[0].context_expr
        names: list[str | None] = []
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            names = [child.module]
        elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith("import_module"):
            names = [child.args[0].value if isinstance(child.args[0], ast.Constant) else None]  # type: ignore[list-item]
        yield from ((name.partition(".")[0], guard) for name in names if name)
        yield from imports(child, guard)


def test_every_import_of_an_optional_package_says_how_to_install_it():
    """It is inside `needed_for`, whose extra brings the package; or in a module that is loaded after such a check."""
    src = ROOT / "src" / "dropkit"
    for file in src.rglob("*.py"):
        path = file.relative_to(src)
        known = GUARDED.get(path.as_posix()) or GUARDED.get(path.parent.as_posix()) or ""
        for package, guard in imports(ast.parse(file.read_text())):
            if package in {*ALWAYS, *known.split()}:
                continue
            assert isinstance(guard, ast.Call), f"{path} imports {package}"
            extra = ast.literal_eval(guard.args[1]) if len(guard.args) > 1 else "mc"
            name = extras._NAMES.get(package, package)
            assert extra is None or name in packages(extra), f"{path} imports {package}, which {extra} does not bring"


def test_the_table_lists_every_extra_with_what_it_installs():
    """docs/install.md and pyproject.toml agree; the README names the same extras."""
    page = (ROOT / "docs" / "install.md").read_text()
    rows = re.findall(
        r"^\| `(\w+)` \| .+ \| (.+) \|$", page.partition("## Extras")[2].partition("\n## ")[0], re.MULTILINE
    )

    listed = {name: re.findall(r"[\w-]+", cell.replace("as ", "")) for name, cell in rows}

    wanted = {
        name: [word for one in requirements for word in re.findall(r"[\w-]+", re.sub(r"^dropkit|[>;].*", "", one))]
        for name, requirements in declared().items()
        if name not in ("dev", "docs")
    }
    assert listed == wanted
    readme = (ROOT / "README.md").read_text().partition("[extras]")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", readme)) == set(wanted)


def test_all_brings_every_extra_for_users():
    """But gpu, which is of no use beside torch's builds for CPUs, and what only the tests and the site need."""
    users = declared().keys() - {"all", "gpu", "dev", "docs"}

    assert packages("all") == set().union(*map(packages, users))


def numbers(*shape: int) -> torch.Tensor:
    return torch.full(shape, 0.5)


def values() -> dropkit.mc.ValuePrediction:
    model = torch.nn.Sequential(torch.nn.Dropout())
    return dropkit.mc.predict(model, torch.ones(2, 3), 2, "regression", keep_samples=True, seed=0)


def classes() -> dropkit.mc.ClassPrediction:
    return dropkit.mc.from_samples(numbers(2, 3, 2))


def audited() -> dropkit.auditor.Report:
    return dropkit.audit(torch.nn.Dropout(), torch.ones(2))


# Each use of an optional package from Python, the package, and the extra.
USES: list[tuple[str, Callable[[], object], str, str]] = [
    ("MCClassifier", lambda: dropkit.mc.MCClassifier(), "sklearn", "mc"),
    ("MCRegressor", lambda: dropkit.mc.MCRegressor(), "numpy", "mc"),
    ("dropkit.mc.sklearn", lambda: importlib.import_module("dropkit.mc.sklearn"), "sklearn", "mc"),
    ("to_html", lambda: classes().to_html(), "jinja2", "mc"),
    ("to_html", lambda: classes().to_html(), "matplotlib", "mc"),
    ("plot", lambda: classes().plot(), "matplotlib", "mc"),
    ("ood", lambda: classes().ood(classes()), "torchmetrics", "mc"),
    ("fit_tau", lambda: values().fit_tau(values().mean), "scipy", "mc"),
    ("an HTML page", lambda: audited().to_html(), "jinja2", "torch"),
    (
        "dropkit.callbacks.lightning",
        lambda: importlib.import_module("dropkit.callbacks.lightning"),
        "lightning",
        "lightning",
    ),
    (
        "dropkit.callbacks.transformers",
        lambda: importlib.import_module("dropkit.callbacks.transformers"),
        "transformers",
        "transformers",
    ),
    ("a search", lambda: dropkit.tune(), "optuna", "tune"),
    ("the interval of a study", lambda: dropkit.studies.statistics.estimate([1.0, 2.0]), "scipy", "study"),
]
# They import an optional package at their top.
ON_TOP = ("dropkit.mc.sklearn", "dropkit.mc.sklearn_base", "dropkit.report.page", "dropkit.callbacks.")


@pytest.mark.parametrize(("what", "use", "package", "extra"), USES, ids=[f"{use[0]}-{use[2]}" for use in USES])
def test_the_error_says_the_command(what, use, package, extra, monkeypatch):
    """'<what> needs <package>: pip install "dropkit[<extra>]"', instead of a bare traceback."""
    for name in list(sys.modules):
        if name.startswith((f"{package}.", *ON_TOP)):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(extras.MissingPackage) as caught:
        use()

    assert str(caught.value) == f'{what} needs {extras._NAMES.get(package, package)}: pip install "dropkit[{extra}]"'


def test_without_torch_names_of_dropkit_say_the_command(monkeypatch):
    """Those that load at their first use."""
    for name in ("dropkit.patch.install", "dropkit.patch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)

    with pytest.raises(extras.MissingPackage, match=r'dropkit.install needs torch: pip install "dropkit\[torch\]"'):
        _ = dropkit.install


@pytest.mark.slow
def test_links_lead_somewhere_on_a_package_index(tmp_path):
    """The description of the package has no relative link, and every one into the repository names a file of it."""
    subprocess.run([sys.executable, "setup.py", "-q", "egg_info", "-e", tmp_path], cwd=ROOT, check=True)
    metadata = message_from_string((tmp_path / "dropkit.egg-info" / "PKG-INFO").read_text())
    urls = dict(entry.split(", ") for entry in metadata.get_all("Project-URL", []))

    links = [*re.findall(r"\]\((.+?)\)", metadata.get_payload()), *urls.values()]

    assert len(links) > 20
    assert metadata["Description-Content-Type"] == "text/markdown"
    for link in links:
        assert link.startswith("https://")
        path = link.removeprefix(f"{urls['Source']}/blob/main/").partition("#")[0]
        assert path.startswith("https://") or (ROOT / path).exists(), link
