"""Which kinds of dropout are active under each package's Monte Carlo dropout, and does batch norm keep its statistics?

`make peers` runs it. A star marks kinds for which a package raises an error unless the model has an `nn.Dropout` as
well; an unused one was then added.
"""

from __future__ import annotations

import copy
import warnings

import click
import torch
from forms import FORMS, Form
from helpers.mc_models import KINDS
from torch import nn

COLUMNS = {
    "usual snippet": "naive loop",
    "baal": "baal, loop",
    "torch-uncertainty": "torch-uncertainty, loop",
    "lightning-uq-box": "lightning-uq-box, loop",
    "dropkit": "dropkit, masks=input",
}
X = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(1))


def probe(form: Form, name: str, unused: bool) -> tuple[bool, bool]:
    """Return whether samples differ, and whether the statistics of batch norm are unchanged."""
    torch.manual_seed(0)
    model = KINDS[name]().eval()
    if unused:
        model.unused = nn.Dropout(0.5)
    before = copy.deepcopy(model.norm.state_dict())
    # The other packages are asked for one sample several times. dropkit's masks follow from the seed, so every call
    # returns the same sample: it is asked for several at once.
    count = 8
    if form is FORMS["dropkit, masks=input"]:
        differ = bool(form(model, X, count, len(X))[2].amax() > 0)
    else:
        differ = bool(torch.stack([form(model, X, 1, len(X))[0] for _ in range(count)]).var(0).amax() > 1e-9)
    unchanged = all(torch.equal(before[key], value) for key, value in model.norm.state_dict().items())
    return differ, unchanged


def answer(form: Form, name: str) -> tuple[str, bool]:
    """Return the cell of the table, and whether the statistics of batch norm are unchanged."""
    error = ""
    for star in ("", "*"):
        try:
            differ, unchanged = probe(form, name, bool(star))
        except Exception as raised:  # every package has errors of its own
            error = type(raised).__name__
            continue
        return ("yes" if differ else "no") + star, unchanged
    return error, True


def main() -> None:
    warnings.simplefilter("error", UserWarning)
    click.echo(f"| layer | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    statistics_kept = dict.fromkeys(COLUMNS, True)
    for name in KINDS:
        cells: list[str] = []
        for column, form in COLUMNS.items():
            cell, unchanged = answer(FORMS[form], name)
            statistics_kept[column] &= unchanged
            cells.append(cell)
        click.echo(f"| `{name}` | {' | '.join(cells)} |")
    kept = ("yes" if kept else "NO" for kept in statistics_kept.values())
    click.echo(f"| batch norm keeps its statistics | {' | '.join(kept)} |")


if __name__ == "__main__":
    main()
