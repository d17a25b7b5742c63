"""Rates that nothing reads, and rates that something may read, in the projects of `helpers.unread_rates`."""

import pytest
from helpers.rate_projects import found
from helpers.unread_rates import fields, functions, kept, locals

KINDS = (fields, functions, kept, locals)
UNREAD = {name: project for kind in KINDS for name, project in kind.UNREAD.items()}
MAYBE_READ = {name: project for kind in KINDS for name, project in kind.MAYBE_READ.items()}


def test_no_two_projects_have_one_name():
    assert len(UNREAD) == sum(len(kind.UNREAD) for kind in KINDS)
    assert len(MAYBE_READ) == sum(len(kind.MAYBE_READ) for kind in KINDS)


@pytest.mark.parametrize(("code", "files"), UNREAD.values(), ids=UNREAD)
def test_a_rate_or_a_layer_that_nothing_reads_is_found(code, files, tmp_path):
    """It is reported once, and nothing else is."""
    assert found(tmp_path, files) == [code]


@pytest.mark.parametrize("files", MAYBE_READ.values(), ids=MAYBE_READ)
def test_what_something_may_read_is_left_alone(files, tmp_path):
    assert found(tmp_path, files) == []
