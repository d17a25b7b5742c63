"""The rates among the fields of configuration classes, and what files say about who reads them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.lint.semantic.attribute_usage import is_admitted
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.dropout_names import is_rate_name
from dropkit.lint.semantic.expressions import last_name, self_attribute
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.receivers import is_settings_name
from dropkit.lint.semantic.syntax_tree import cached_per_file

# Classes that hold settings, by their names.
_KIND = "Configs?|Configuration|Cfg|Conf|Args|Arguments|Settings|Options|Opts|Params|Hyperparameters|Parameters|Spec"
_SETTINGS_CLASS = pattern(rf"\w*(?:{_KIND})")
_SETTINGS_NAME = pattern(rf"\b(?=[A-Z])\w*(?:{_KIND})\b".encode())
_UNPACKED = (b"asdict(", b"dataclasses.asdict(", b"vars(", b"dict(")
_RECORDS = frozenset({"dataclass", "define", "frozen", "attrs", "s", "configclass"})
# Functions that give all fields of a record, and calls that only show or save them.
_WHOLE = ("asdict", "astuple", "fields", "vars", "model_dump", "dict", "to_dict", "_asdict", "to_container", "parser")
_SHOWS = pattern(r"init|dumps?|print|info|log\w*|save\w*|write|update|pprint|debug")
_QUOTED = pattern(rb"""["'](\w*(?:[dD]rop)\w*)["']""")


def unread_fields(source: SourceFile) -> Iterator[tuple[ClassDefinition, ast.AnnAssign, str]]:
    """The fields of records that are rates, and that this file never reads."""
    for cls in source.classes:
        if not is_settings_class(cls.name) or not _is_record(cls) or cls.methods.keys() & {"__getattr__", "__iter__"}:
            continue
        for statement in cls.node.body:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name)) if _is_unread(source, statement, name):
                    yield cls, statement, name
                case _:
                    pass


def _is_unread(source: SourceFile, field: ast.AnnAssign, name: str) -> bool:
    """Whether a field is a number and, by its name, a rate, and this file reads it in no way."""
    is_number = re.search(r"bool|str|Module|Callable|Type|Config", ast.unparse(field.annotation)) is None
    is_read = name in rates_read(source) or reads_whole_settings(source)
    return is_number and is_rate_name(name) and not is_read and not is_admitted(source, field)


def is_settings_class(name: str) -> bool:
    """Whether a class of this name holds settings.

    Example:
        >>> [is_settings_class(name) for name in ("ModelConfig", "TrainArgs", "Encoder", "Parameter")]
        [True, True, False, False]
    """
    return _SETTINGS_CLASS.fullmatch(name) is not None


@cached_per_file
def mentions_rates(source: SourceFile) -> bool:
    """Whether a name in this file can be that of a rate."""
    return b"drop" in source.text.utf8.lower()


@cached_per_file
def rates_read(source: SourceFile) -> set[str]:
    """The names of rates that this file reads as attributes or by strings, other than of a class that sets them."""
    if not mentions_rates(source):
        return set()
    attributes = {name for name, nodes in source.attributes.items() if is_rate_name(name) and _reads(source, nodes)}
    quoted = {match[1].decode() for match in _QUOTED.finditer(source.text.utf8)}
    return attributes | {name for name in quoted if is_rate_name(name)}


def _reads(source: SourceFile, nodes: list[ast.Attribute]) -> bool:
    return len(nodes) > MOST or any(isinstance(node.ctx, ast.Load) and not _is_own(source, node) for node in nodes)


def _is_own(source: SourceFile, node: ast.Attribute) -> bool:
    """Whether a Module reads an attribute of its own."""
    owner = source.module(node) if self_attribute(node) is not None else None
    return owner is not None and any(node.attr in cls.writes for cls in owner.mro)


@cached_per_file
def reads_whole_settings(source: SourceFile) -> bool:
    """Whether this file takes all fields of a record at once, other than to show or save them."""
    calls = [call for name in _WHOLE for call in source.calls.get(name, []) if call.args or name != "dict"]
    whole = [call for call in calls if not (last_name(call) == "vars" and not call.args)]
    if any(not _SHOWS.fullmatch(last_name(_outer_call(source, call))) for call in whole):
        return True
    if any(isinstance(node.ctx, ast.Load) for node in source.attributes.get("__dict__", [])):
        return True
    return any(map(_reads_any, source.calls.get("getattr", [])))


def _reads_any(call: ast.Call) -> bool:
    """Whether `getattr` reads a field of settings whose name is made at run time."""
    return (
        len(call.args) > 1 and is_settings_name(last_name(call.args[0])) and not isinstance(call.args[1], ast.Constant)
    )


def _outer_call(source: SourceFile, call: ast.Call) -> ast.AST | None:
    parent = source.parent(call)
    return source.parent(parent) if isinstance(parent, ast.keyword) and parent.arg is not None else parent


def facts_about_settings(source: SourceFile) -> Iterator[tuple[str]]:
    """Which rates this file reads, and of which classes of settings it reads other fields, or all at once."""
    for name in rates_read(source):
        yield (f"reads:{name}",)
    for match in set(_SETTINGS_NAME.findall(source.text.utf8)):
        if reads_whole_settings(source):
            yield (f"unpacks:{match.decode()}",)
        if uses_settings(source):
            yield (f"uses:{match.decode()}",)
    if any(b"**" + name in source.text.utf8 for name in _UNPACKED) and reads_whole_settings(source):
        yield ("unpacks:*",)


@cached_per_file
def uses_settings(source: SourceFile) -> bool:
    """Whether this file reads any attribute of settings that is no rate."""
    return any(
        not is_rate_name(name) and any(_is_of_settings(node) for node in nodes[:MOST])
        for name, nodes in source.attributes.items()
    )


def _is_of_settings(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Load) and is_settings_name(last_name(node.value))


def _is_record(cls: ClassDefinition) -> bool:
    names = {last_name(decorator) for decorator in cls.node.decorator_list}
    bases = {last_name(base) for base in cls.node.bases}
    return bool(names & _RECORDS) or bases in ({"NamedTuple"}, {"BaseModel"}, {"BaseSettings"})
