"""Tables in text files, separated by commas, semicolons or tabs: one column is the target, the others are inputs.

Columns of numbers are inputs as they are; a column of texts becomes one input of 0 or 1 for each different text.
"""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, islice
from math import isfinite
from operator import eq
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from dropkit import files
from dropkit.arguments import check, did_you_mean
from dropkit.studies.data import Data, Task
from dropkit.studies.readers.options import Options

# So many different texts are still categories; more are names or sentences, which a column of 0 and 1 each cannot help.
_MAX_TEXTS = 100
# A target with at most so many different whole numbers has classes; with more it has values.
_MAX_CLASSES = 20
_MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none", "-", "."})


def read(rest: str, options: Options) -> Data:
    """Read "FILE:TARGET", the path of a table and the name of its target's column."""
    path, target = rest.rsplit(":", 1) if ":" in rest else (rest, "")
    columns = _columns(files.read(path))
    names = list(columns)
    if target not in columns:
        shown = ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
        wanted = f"csv:FILE:TARGET with one of the columns {shown}"
        raise ValueError(f"the target must be given as {wanted}, got {target!r}{did_you_mean(target, names)}")
    check("columns", len(names) > 1, "the target and at least one input", repr(names[0]))
    inputs = [column.inputs(name) for name, column in columns.items() if name != target]
    targets, classes, note = columns[target].targets(target, options)
    return Data(torch.cat(inputs, 1), targets, classes, Path(path).name, note=note)


@dataclass(slots=True)
class _Column:
    """The cells of a column: numbers, or the numbers of its texts in the order of their first use."""

    is_text: bool
    values: array[float] = field(default_factory=lambda: array("d"))
    texts: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, cell: str, name: str, line: int) -> None:
        """Add the cell of one line."""
        check(f"line {line}, column {name!r}", cell.lower() not in _MISSING, "a value in every line", repr(cell))
        number = _number(cell)
        if self.is_text == (number is not None):
            wanted = "text, as in the lines above" if self.is_text else "a finite number, as in the lines above"
            raise ValueError(f"line {line}, column {name!r} must be {wanted}, got {cell!r}")
        self.values.append(self.texts.setdefault(cell, len(self.texts)) if number is None else number)

    def inputs(self, name: str) -> Tensor:
        """The column as inputs, (N, 1), or (N, K) for K texts."""
        values = torch.tensor(self.values, dtype=torch.float64)
        if not self.is_text:
            return _single(values, name)[:, None]
        different = len(self.texts)
        wanted = f"numbers, or at most {_MAX_TEXTS} different texts"
        check(f"column {name!r}", different <= _MAX_TEXTS, wanted, f"{different} different texts")
        return one_hot(self._sorted(values), different).float()

    def _sorted(self, values: Tensor) -> Tensor:
        """The number of each text in alphabetical order."""
        places = torch.tensor([self.texts[text] for text in sorted(self.texts)]).argsort()
        return places[values.long()]

    def targets(self, name: str, options: Options) -> tuple[Tensor, tuple[str, ...], str]:
        """The column as targets, the names of their classes, and how that was decided if it could be otherwise."""
        values = torch.tensor(self.values, dtype=torch.float64)
        if self.is_text:
            check(f"column {name!r}", options.task != "regression", "numbers for regression", "text")
            classes, numbers, note = sorted(self.texts), self._sorted(values), ""
        else:
            different = sorted(set(self.values))
            is_few = len(different) <= _MAX_CLASSES and all(number == int(number) for number in different)
            task = options.task or ("classification" if is_few else "regression")
            note = "" if options.task else _note(name, len(different), task)
            if task == "regression":
                return _single(values, name), (), note
            classes = [f"{number:.15g}" for number in different]
            numbers = torch.searchsorted(torch.tensor(different, dtype=torch.float64), values)
        wanted = "classes, with two lines or more for most of them"
        check(f"column {name!r}", 2 * len(classes) <= len(values), wanted, f"{len(classes)} in {len(values)} lines")
        return numbers, tuple(classes), note


def _note(name: str, count: int, task: Task) -> str:
    taken, other = ("classes", "regression") if task == "classification" else ("values", "classification")
    return f"{name!r} has {count} different numbers, taken as {taken}; for {other} add :{other} to the target"


def _single(values: Tensor, name: str) -> Tensor:
    """Numbers in single precision."""
    check(f"column {name!r}", bool((values.abs() < 3e38).all()), "within single precision", "larger numbers")
    return values.float()


def _columns(content: bytes) -> dict[str, _Column]:
    """Read the columns by name; without a line of names they are 1, 2, 3 and so on."""
    rows = _rows(content)
    beginning = list(islice(rows, 2))
    check("the file", bool(beginning), "a table with a line of names", "nothing")
    line, first = beginning[0]
    is_header = _is_header(*(row for _, row in beginning))
    names = [cell if is_header and cell else str(number) for number, cell in enumerate(first, 1)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    check(f"line {line}", not repeated, "different names of columns", f"{repeated[:1]} twice")
    columns: dict[str, _Column] = {}
    for at, row in chain(beginning[is_header:], rows):
        check(f"line {at}", len(row) == len(names), f"{len(names)} cells, as many as columns", len(row))
        if not columns:
            columns = {name: _Column(_number(cell) is None) for name, cell in zip(names, row, strict=True)}
        for (name, column), cell in zip(columns.items(), row, strict=True):
            column.add(cell, name, at)
    check("the file", bool(columns), "a table with lines after the names", "none")
    if is_header and not first[0] and all(map(eq, columns[names[0]].values, count())):
        del columns[names[0]]  # the numbers of lines, as pandas writes them
    return columns


def _is_header(first: list[str], second: Sequence[str] = ()) -> bool:
    """Whether the first line has names: no numbers, text above a number, or the numbers of columns from 0 on."""
    is_text = [_number(cell) is None for cell in first]
    numbers = [cell for cell, text in zip(first, is_text, strict=True) if not text]
    above = any(text and _number(cell) is not None for text, cell in zip(is_text, second, strict=False))
    return above or all(is_text) or (any(is_text) and numbers == [str(number) for number in range(len(numbers))])


def _rows(content: bytes) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not empty, with their numbers."""
    if b"\0" in content:
        raise ValueError("it must be text, got zero bytes")
    file = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="")
    try:
        header = file.readline(1 << 20)
        file.seek(0)
        delimiter = max(",;\t", key=header.count)
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
        for row in reader:
            if row:
                yield reader.line_num, [cell.strip() for cell in row]
    except UnicodeDecodeError as error:
        raise ValueError(f"it must be text in UTF-8, got {error.reason} in the middle") from error
    except csv.Error as error:
        raise ValueError(f"it must be a table, got: {error}") from error


def _number(cell: str) -> float | None:
    """A finite number; None for text. Python's own forms, such as 1_000, are text."""
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if isfinite(number) and "_" not in cell else None
