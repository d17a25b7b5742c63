"""Facts about rates that calls pass to functions of other files, and that these never read."""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.lint.semantic.dropout_names import is_rate_name
from dropkit.lint.semantic.expressions import is_off, last_name, last_part
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.module_names import module_key, own_key
from dropkit.lint.semantic.settings_fields import mentions_rates
from dropkit.lint.semantic.unread_rates import unread_parameters


def facts_of_passed_rates(source: SourceFile) -> Iterator[tuple[str, ...]]:
    """Which functions of this file get rates that they never read, and which rates it passes to others."""
    if mentions_rates(source):
        yield from _ignored(source)
        yield from _passed(source)


def _ignored(source: SourceFile) -> Iterator[tuple[str, str]]:
    """The functions of this file that get a rate and never read it, if a file passes the rate."""
    for function, rate in unread_parameters(source):
        key, place = own_key(source, function.name), function.parameters.index(rate)
        if function.owner is None and function.within is None:
            yield f"gets:{key}:{rate.arg}", f"passes:{key}:{rate.arg}"
            yield f"gets:{key}:{rate.arg}", f"passes:{key}:#{place}"


def _passed(source: SourceFile) -> Iterator[tuple[str]]:
    """The rates that calls pass to functions of other files, by the keyword or the place."""
    for call in source.all_calls:
        by_name = [(each.arg, each.value) for each in call.keywords if each.arg and is_rate_name(each.arg)]
        by_place = [(f"#{place}", value) for place, value in enumerate(call.args) if is_rate_name(last_name(value))]
        known = source.called(call) if by_name or by_place else None
        if (
            known is not None
            and last_part(known).islower()
            and not known.startswith("torch.")
            and source.local_class(call.func) is None
        ):
            key = module_key(source, known)
            yield from ((f"passes:{key}:{argument}",) for argument, value in (*by_name, *by_place) if not is_off(value))
