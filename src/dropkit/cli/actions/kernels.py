"""What `dropkit kernels` does: print which kernel runs on which device and dtype."""

from __future__ import annotations

import json
import warnings

import click
import torch
from rich.table import Table

from dropkit import torch_private
from dropkit.kernels import FLOATS, KERNELS, SlowKernelWarning, kernel_for, why_slow
from dropkit.kernels.cpu import LEVEL, levels
from dropkit.report.console import console


def _devices() -> list[str]:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return ["cpu", *([accelerator.type] if accelerator else []), "meta"]


def show_kernels(as_json: bool) -> None:
    """Print the kernels as a table or as JSON."""
    dtypes = sorted(str(dtype).removeprefix("torch.") for dtype in FLOATS)
    with warnings.catch_warnings():
        # The table shows the reason.
        warnings.simplefilter("ignore", SlowKernelWarning)
        kernels = {device: kernel_for(device) for device in _devices()}
    unavailable = {kernel.name: kernel.missing for kernel in KERNELS if kernel.missing}
    if as_json:
        devices = {
            device: {"kernel": kernel.name, "dtypes": dtypes, "detail": kernel.detail(), "why_slow": why_slow(device)}
            for device, kernel in kernels.items()
        }
        answer = {
            "devices": devices,
            "cpu_levels": levels(),
            "not_available": unavailable,
            "torch": torch.__version__,
            "torch_lacks": torch_private.missing(),
        }
        click.echo(json.dumps(answer, indent=2))
        return
    # What to do about a slow kernel follows the semicolon, and is printed below the table.
    reasons = {device: (why_slow(device) or "").partition(";")[0] for device in kernels}
    has_slow = any(reasons.values())
    table = Table("device", "kernel", "dtypes", "details", *(["why it is slow"] if has_slow else []))
    for device, kernel in kernels.items():
        cells = (device, kernel.name, ", ".join(dtypes), kernel.detail())
        table.add_row(*cells, *([reasons[device]] if has_slow else []))
    screen = console()
    screen.print(table)
    available = ", ".join(
        f"{name} ({'runs here' if runs else 'not on this processor'})" for name, runs in levels().items()
    )
    screen.print(f"CPU instruction sets of this build, best first: {available or 'none'}. {LEVEL} chooses one.")
    for name, reason in unavailable.items():
        screen.print(f"Not available: {name}, because {reason}.")
    for line in torch_private.missing():
        screen.print(line)
