"""Every program that a test of the rules reads has the same findings under aliases."""

import pytest
from helpers.aliases import codes, imported_as, under_aliases

from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.parsing import Unreadable

# Longer programs measure the growth of work; they repeat what the shorter ones hold.
LONGEST = 4000


@pytest.fixture(autouse=True)
def _aliases_change_no_finding(monkeypatch):
    """Read each program of a test once more, with names of torch's that say nothing."""
    programs = {}
    init = SourceFile.__init__

    def record(self, path, text, tree, always_on=()):
        if len(text.utf8) <= LONGEST and b"torch" in text.utf8:
            programs[path, text.utf8.decode(), always_on] = None
        init(self, path, text, tree, always_on)

    monkeypatch.setattr(SourceFile, "__init__", record)
    yield
    monkeypatch.undo()
    for path, program, always_on in programs:
        try:
            changed = under_aliases(program, imported_as)
            found = codes(changed, path, always_on)
        except Unreadable:
            continue  # An import that ends in a backslash, or in an open string.
        assert found == codes(program, path, always_on), changed
