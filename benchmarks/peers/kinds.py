"""Which kinds of dropout draw under each package's Monte Carlo dropout, and does batch norm keep its statistics?

Run by `make peers`. A star marks kinds for which a package raises unless the model holds an `nn.Dropout` as well; one
that is never called was added then.
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


def draws(form: Form, name: str, unused: bool) -> tuple[bool, bool]:
    """Whether predictions differ, and whether batch norm was left alone."""
    torch.manual_seed(0)
    model = KINDS[name]().eval()
    if unused:
        model.unused = nn.Dropout(0.5)
    before = copy.deepcopy(model.norm.state_dict())
    # Each is asked for one sample, several times; ours for several, since its masks follow from the seed.
    count = 8
    if form is FORMS["dropkit, masks=input"]:
        differ = bool(form(model, X, count, len(X))[2].amax() > 0)
    else:
        differ = bool(torch.stack([form(model, X, 1, len(X))[0] for _ in range(count)]).var(0).amax() > 1e-9)
    alone = all(torch.equal(before[key], value) for key, value in model.norm.state_dict().items())
    return differ, alone


def answer(form: Form, name: str) -> tuple[str, bool]:
    error = ""
    for star in ("", "*"):
        try:
            differ, alone = draws(form, name, bool(star))
        except Exception as raised:  # packages refuse in ways of their own
            error = type(raised).__name__
            continue
        return ("yes" if differ else "no") + star, alone
    return error, True


def main() -> None:
    warnings.simplefilter("error", UserWarning)
    click.echo(f"| layer | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    left_alone = dict.fromkeys(COLUMNS, True)
    for name in KINDS:
        cells: list[str] = []
        for column, form in COLUMNS.items():
            said, alone = answer(FORMS[form], name)
            left_alone[column] &= alone
            cells.append(said)
        click.echo(f"| `{name}` | {' | '.join(cells)} |")
    click.echo(f"| batch norm is left alone | {' | '.join('yes' if one else 'NO' for one in left_alone.values())} |")


if __name__ == "__main__":
    main()
