"""Self-contained HTML pages: styles are inside, nothing is fetched, light or dark as the reader's system is."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from dropkit.extras import needed_for
from dropkit.report.units import in_bytes, in_count, in_seconds

with needed_for("an HTML page", "torch"):
    from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """Fill in a template of this folder; values are escaped."""
    return _environment().get_template(template).render(**values)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dropkit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(bytes=in_bytes, seconds=in_seconds, count=in_count)
    return environment
