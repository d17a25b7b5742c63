"""`dir()` of each public module shows its public names alone, and their types are complete."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dropkit

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs" / "site"))

import api_pages  # noqa: E402


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", api_pages.MODULES)
def test_dir_shows_the_public_names_alone(module, request):
    """In the order of the alphabet, those that load at their first use as well, and no module that it imports."""
    if "callbacks" in module:
        _import_library(module.rpartition(".")[2], request)
    loaded = importlib.import_module(module)

    assert dir(loaded) == sorted(api_pages.public_names(module))
    assert all(getattr(loaded, name) is not None for name in dir(loaded))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Dropout", "; it is dropkit.nn.Dropout"),
        ("dropout", "; it is dropkit.functional.dropout"),
        ("predict", "; it is dropkit.mc.predict"),
        ("nonsense", ""),
    ],
)
def test_a_name_of_another_module_is_said_to_be_there(monkeypatch, name, hint):
    """`dropkit.Dropout` is where many look first; a mere question for a name imports nothing."""
    monkeypatch.delitem(sys.modules, "dropkit.mc", raising=False)
    with pytest.raises(AttributeError) as caught:
        getattr(dropkit, name)

    assert str(caught.value) == f"module 'dropkit' has no attribute {name!r}{hint}"
    assert "dropkit.mc" not in sys.modules


def _import_library(library, request):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is missing")
    request.getfixturevalue("torchvision")  # which it imports
    importlib.import_module(library)


@pytest.mark.long
def test_types_are_complete(tmp_path):
    """Pyright knows the type of every name without an underscore, but for what other packages leave unknown."""
    pyright = pytest.importorskip("pyright")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = pyright.run(
        "--verifytypes", "dropkit", "--ignoreexternal", "--outputjson", cwd=tmp_path,
        stdout=subprocess.PIPE, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip

    found = json.loads(process.stdout)["typeCompleteness"]

    incomplete = [one for one in found["symbols"] if one["isExported"] and not one["isTypeKnown"]]
    assert [(one["name"], *(entry["message"] for entry in one["diagnostics"])) for one in incomplete] == []
    assert found["completenessScore"] == 1
