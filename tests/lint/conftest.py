"""The project that the tests of the linter check."""

import pytest
from helpers.lint import BAD, SECRET


@pytest.fixture(scope="session")
def _cache_home(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _no_user_cache(_cache_home, monkeypatch):
    """Tests neither read nor write the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(_cache_home))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one finding, as working directory; a file and a folder beside it do not belong to it."""
    (tmp_path / "victim").write_text(SECRET)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/net.py").write_text(BAD)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool.dropkit]\n")
    (folder / "net.py").write_text(BAD)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    return folder
