"""Check and time dropout on a GPU, and print one table in Markdown.

    python benchmarks/gpu

This needs a GPU, a build of torch for it and dropkit, and takes less than eight minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import torch

# The files beside this one are the package `gpu`, which uses files of the folder above.
sys.path[0] = str(Path(__file__).parents[1])

from gpu.device import Device  # noqa: E402 (after the path)
from gpu.parts import PARTS, run  # noqa: E402


@click.command()
@click.option("--only", multiple=True, type=click.Choice([part.name for part in PARTS]), help="Run this part alone.")
@click.option("--record", is_flag=True, help="Keep the rows in docs/benchmarks.json, and write docs/benchmarks.md.")
def main(only: tuple[str, ...], record: bool) -> None:
    """Check and time dropout on a GPU; the two sides of a ratio are timed alternately.

    Fails if a part fails or is cut short, not if a target is missed.
    """
    if not torch.cuda.is_available():
        raise click.ClickException("this needs a GPU and a build of torch for it")
    run(Device(), [part for part in PARTS if part.name in only] if only else PARTS, record)


if __name__ == "__main__":
    main()
