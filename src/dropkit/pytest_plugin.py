"""The pytest plugin: `assert_dropout_ok` as a fixture. It imports torch only when a test uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def assert_dropout_ok() -> Callable[..., Any]:
    """Fail if an audit has findings: `assert_dropout_ok(model, *inputs, ignore=(), severity="warning")`."""
    from dropkit.testing import assert_dropout_ok

    return assert_dropout_ok
