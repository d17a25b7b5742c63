"""Write the documentation of the layers: one page each with a picture of its mask, and the table of all."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path
from typing import Any

import torch

from dropkit import nn
from dropkit.nn.layer import Layer

HERE = Path(__file__).parent / "layers"
KEY = 3
# Of the pictures: side of a square, gap between panels, and the most panels and squares along each side.
SIDE, GAP, PANELS, SQUARES = 10, 12, 8, 24
KEPT, DROPPED = "#3b6ea5", "#e8e8e8"


def pages() -> dict[str, str]:
    """The content of each generated file in this folder, by name."""
    records = [*nn.LAYERS, *nn.COMPOSED]
    files = {"README.md": _table(records)}
    for record in records:
        picture = _picture(record)
        files[f"{record.name}.svg"] = _svg(picture)
        files[f"{record.name}.md"] = _page(record.module, _caption(record, picture))
    files.update({f"{module.__name__}.md": _page(module, "") for module in nn.FUSED})
    return files


def _table(records: list[Any]) -> str:
    rows = [
        f"| [{record.name}]({record.name}.md) | {_summary(record.module)} | {record.where} "
        f"| [![Its mask]({record.name}.svg)]({record.name}.md) |"
        for record in records
    ]
    rows += [
        f"| [{cls.__name__}]({cls.__name__}.md) | {_summary(cls)} | see [fused](../fused.md) | |" for cls in nn.FUSED
    ]
    return "\n".join(
        [
            "# Which dropout where",
            "",
            "Every layer of `dropkit.nn`, what it drops, and where it is put at which rates. The page of a layer has a",
            "picture of its mask, its arguments and its source. [Which rate, and where](../which-rate-where.md) has",
            "the measurements behind the rates, [single elements or whole channels](../element-or-channel.md) the",
            "choice that matters most.",
            "",
            "| layer | what it does | where, and at which rate | mask at rate 0.5 |",
            "|---|---|---|---|",
            *sorted(rows),
            "",
        ]
    )


def _page(module: type[torch.nn.Module], picture: str) -> str:
    """The page of a layer: its file's first words, its picture, the docstrings of module and function."""
    file = inspect.getmodule(module)
    head = inspect.getdoc(file) or ""
    title, _, source = head.partition("\n\n")
    function = getattr(module, "_function", None)
    name = Path(str(file.__file__)).name if file is not None else ""
    parts = [
        f"# {module.__name__}",
        _sentence(title.partition(": ")[2] or title),
        *([source] if source else []),
        *([picture] if picture else []),
        f"## `dropkit.nn.{module.__name__}`",
        f"```text\n{module.__name__}{_signature(module)}\n```",
        _docstring(module, f"from dropkit.nn import {module.__name__}"),
    ]
    if function is not None:
        parts += [
            f"## `dropkit.functional.{function.__name__}`",
            f"```text\n{function.__name__}{_signature(function)}\n```",
            _docstring(function, f"from dropkit.functional import {function.__name__}"),
        ]
    parts.append(f"In [`{name}`](../../src/dropkit/nn/{name}); [all layers](README.md).")
    return "\n\n".join(parts) + "\n"


def _signature(thing: Any) -> str:
    """The arguments with their defaults, without annotations, which the text explains."""
    signature = inspect.signature(thing)
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def _docstring(thing: Any, imported: str) -> str:
    """The docstring with its sections as paragraphs, its arguments as a list, and its example as code that runs."""
    lines: list[str] = []
    section = ""
    for line in (inspect.getdoc(thing) or "").splitlines():
        if re.fullmatch(r"(Args|Shape|Raises|Returns|Attributes|Example|Source):", line):
            section = line[:-1]
            lines += [f"**{'Arguments' if section == 'Args' else section}**", ""]
            if section == "Example":
                lines += ["```python", ">>> import torch", f">>> {imported}"]
        elif section == "Example" and line and not line.startswith("    "):
            lines += ["```", "", line]
            section = ""
        elif section in ("Args", "Raises", "Attributes") and re.match(r"    \S", line):
            lines.append("- " + re.sub(r"^([\w, *]+):", r"`\1`:", line[4:]))
        elif section in ("Args", "Raises", "Attributes"):
            lines.append("  " + line.strip() if line else "")
        else:
            lines.append(line[4:] if section and line.startswith("    ") else line)
    if section == "Example":
        while lines[-1] == "":
            lines.pop()
        lines.append("```")
    return _formulas("\n".join(lines).rstrip())


def _formulas(text: str) -> str:
    """Formulas as the readers of Markdown expect them."""
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    return re.sub(r"\.\. math:: (.*)", r"$$\1$$", text)


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:]


def _summary(module: type[torch.nn.Module]) -> str:
    """What the layer does, from the first line of its file."""
    text = (inspect.getdoc(inspect.getmodule(module)) or "").partition("\n\n")[0]
    return " ".join(text.split()).partition(": ")[2].rstrip(".")


def _picture(record: Any) -> torch.Tensor:
    """Which elements of an example are kept, or how large the noise is, in [0, 1]: panels of rows and columns."""
    if isinstance(record, Layer):
        input = torch.ones(_example_shape(record))
        output = record.function(input, 0.5, True, key=KEY, **record.options)
        values = _shades(record, output)
    else:
        torch.manual_seed(1)
        module = record.make(0.5)
        torch.manual_seed(2)
        output = module(*record.inputs(torch.float32), key=KEY)
        output = output[0] if isinstance(output, tuple) else output
        values = (~record.dropped(output, module)).float()
    values = values.detach()
    while values.dim() < 3:
        values = values.unsqueeze(0)
    values = values.flatten(3).flatten(2) if values.dim() > 4 else values
    return values.flatten(0, -3)[:PANELS, :SQUARES, :SQUARES]


def _example_shape(record: Layer) -> tuple[int, ...]:
    """Of an example that shows shapes: a map is large enough to be seen."""
    shape = record.example_shape
    if len(shape) == 2:
        return 8, 24
    return (2, 4) + (6,) * (len(shape) - 2) if len(shape) > 3 else (4, 6, 8)


def _shades(record: Layer, output: torch.Tensor) -> torch.Tensor:
    fill = getattr(record.params(0.5), "fill", None)
    if fill is not None:
        return (output != torch.tensor(fill, dtype=output.dtype)).float()
    low, high = output.min(), output.max()
    return (output - low) / (high - low)


def _caption(record: Any, panels: torch.Tensor) -> str:
    of_units = set(panels.unique().tolist()) <= {0.0, 1.0}
    text = "dropped units are grey" if of_units else "a darker square is a larger factor"
    if isinstance(record, Layer) and not record.takes_rate:
        return (
            f"![The noise of {record.name}]({record.name}.svg)\n\n"
            "Noise of standard deviation 0.5; a darker square is a larger number."
        )
    return f"![The mask of {record.name}]({record.name}.svg)\n\nA mask at rate 0.5; {text}."


def _svg(panels: torch.Tensor) -> str:
    """Panels of squares side by side."""
    count, rows, columns = panels.shape
    across = max(1, min(count, 700 // (columns * SIDE + GAP)))
    down = math.ceil(count / across)
    width, height = across * columns * SIDE + (across - 1) * GAP, down * rows * SIDE + (down - 1) * GAP
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">']
    for index, panel in enumerate(panels.tolist()):
        left, top = index % across * (columns * SIDE + GAP), index // across * (rows * SIDE + GAP)
        for y, row in enumerate(panel):
            lines += [
                f'<rect x="{left + x * SIDE}" y="{top + y * SIDE}" width="{SIDE - 1}" height="{SIDE - 1}" '
                f'fill="{_colour(value)}"/>'
                for x, value in enumerate(row)
            ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _colour(value: float) -> str:
    low, high = (tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in (DROPPED, KEPT))
    return "#" + "".join(f"{round(a + (b - a) * round(value, 2)):02x}" for a, b in zip(low, high, strict=True))


if __name__ == "__main__":
    for old in (*HERE.glob("*.md"), *HERE.glob("*.svg")):
        old.unlink()
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
