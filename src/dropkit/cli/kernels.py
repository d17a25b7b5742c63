"""`dropkit kernels`: which kernel serves which device and dtype, and why a faster one does not."""

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


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Show which kernel serves which device and dtype, the instruction set in use, and why a faster one is not.

    Set DROPKIT_CPU_LEVEL to an instruction set of this machine to use that one.
    """
    dtypes = sorted(str(dtype).removeprefix("torch.") for dtype in FLOATS)
    with warnings.catch_warnings():
        # What it would warn of stands in the table.
        warnings.simplefilter("ignore", SlowKernelWarning)
        rows = [(device, kernel_for(device)) for device in _devices()]
    absent = {kernel.name: kernel.missing for kernel in KERNELS if kernel.missing}
    if as_json:
        served = {
            device: {"kernel": kernel.name, "dtypes": dtypes, "detail": kernel.detail(), "why_slow": why_slow(device)}
            for device, kernel in rows
        }
        answer = {
            "devices": served,
            "cpu_levels": levels(),
            "not_available": absent,
            "torch": torch.__version__,
            "torch_lacks": torch_private.missing(),
        }
        click.echo(json.dumps(answer, indent=2))
        return
    table = Table("device", "kernel", "dtypes", "how", "why not a faster one")
    for device, kernel in rows:
        # What to do about it stands below the table.
        reason = (why_slow(device) or "it is the fastest").partition(";")[0]
        table.add_row(device, kernel.name, ", ".join(dtypes), kernel.detail(), reason)
    screen = console()
    screen.print(table)
    able = ", ".join(f"{name} ({'runs here' if runs else 'not on this processor'})" for name, runs in levels().items())
    screen.print(f"CPU instruction sets of this build, best first: {able or 'none'}. {LEVEL} chooses one.")
    for name, reason in absent.items():
        screen.print(f"Not available: {name}, because {reason}.")
    for line in torch_private.missing():
        screen.print(line)
