"""The pytest plugin: a fixture that holds `dropkit.testing.assert_dropout_ok`; torch is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def assert_dropout_ok() -> Callable[..., Any]:
    """`dropkit.testing.assert_dropout_ok(model, *inputs, ignore=(), severity="warning")`: fails with what is wrong."""
    from dropkit.testing import assert_dropout_ok

    return assert_dropout_ok
