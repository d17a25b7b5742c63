"""The kinds of dropout that a study compares, and how each is put into a model.

A layer of `dropkit.nn` that takes `p` is a kind by its name. Another kind is one more entry in `KINDS`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

import dropkit.nn as layers
from dropkit.arguments import check, did_you_mean
from dropkit.dropout_functions import RATE_HOLDERS
from dropkit.functional import dropout
from dropkit.patch import rate_sites
from dropkit.patch.batchwise_block import BatchwiseBlock
from dropkit.patch.batchwise_sequential import BatchwiseSequential, leading_block
from dropkit.patch.changes import checked_model, shown
from dropkit.patch.rate_sites import Site
from dropkit.patch.retrofit import retrofit
from dropkit.studies.setting import Setting


class AlwaysOnDropout(layers.Dropout):
    """The most frequent mistake: dropout that `model.eval()` does not switch off."""

    def forward(self, input: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] (no key)
        return dropout(input, self.p, training=True)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of dropout.

    Attributes:
        description: what it is, for the legend of a page.
        layer: `kind` of `dropkit.retrofit`.
        is_batchwise: whether feed-forward blocks leave out the hidden units that are dropped for the whole batch.
        fits_inside: whether it is the kind of dropout inside attention and recurrent networks.
        is_advised: whether it may be recommended.
    """

    description: str
    layer: str | type[nn.Module]
    is_batchwise: bool = False
    fits_inside: bool = False
    is_advised: bool = True


KINDS: dict[str, Kind] = {
    "dropout": Kind("each element by itself", "Dropout", fits_inside=True),
    "dropout2d": Kind("whole channels of feature maps, elements elsewhere", "auto", fits_inside=True),
    "batchwise": Kind("hidden units for the whole batch, so that products are smaller", "Dropout", is_batchwise=True),
    "always-on": Kind("the classic mistake: elements, also in evaluation", AlwaysOnDropout, is_advised=False),
}


def kind_of(name: str) -> Kind:
    """Return the kind of a name: of `KINDS`, or a layer of `dropkit.nn` that takes `p`.

    Raises:
        ValueError: there is none of this name.
    """
    if name in KINDS:
        return KINDS[name]
    names = [record.name for record in (*layers.LAYERS, *layers.COMPOSED)]
    if name not in names:
        wanted = f"{', '.join(KINDS)}, or the name of a layer of dropkit.nn"
        raise ValueError(f"kind must be {wanted}, got {name!r}{did_you_mean(name, [*KINDS, *names])}")
    return Kind(f"layer of dropkit.nn, {name}", name)


def find_sites(model: nn.Module, example: Any = None) -> tuple[str, ...]:
    """Return the names of the sites of a model: its dropouts and dropout rates, or else its activations.

    Args:
        model: any module.
        example: an input, with which the data flow shows what comes before a batch norm.

    Raises:
        ValueError: it has neither; the message says what was found instead.
    """
    found = [site.name for site in _rates(model)]
    if not found:
        places = retrofit(model, example=example, dry_run=True)
        found = list(dict.fromkeys(change.name for change in places))
        reasons = "; ".join(f"{shown(left.name)}: {left.reason.partition(';')[0]}" for left in places.left)
        check("sites", bool(found), "names, since the model has no dropout, nor activations to drop after", reasons)
    return tuple(found)


def place_dropout(model: nn.Module, setting: Setting, example: Any = None) -> nn.Module:
    """Give a model the dropout of `setting` and no other, in place; return it.

    Dropout inside attention and recurrent networks, and rates that a module passes to functions, get the rate of the
    setting; their kind stays.

    Args:
        model: any module.
        setting: what it is to have. Sites are names of modules; after those that do not drop, dropout is added, or
            before them with "before " in front of the name.
        example: an input, as for `find_sites`.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the kind does not exist or cannot be placed, or a site is not in the model.
    """
    existing = _rates(checked_model(model))
    for site in existing:
        site.set_rate(0.0)
    if setting.is_baseline:
        return model
    kind = kind_of(setting.kind)
    if setting.sites is not None:
        _check_sites(model, existing, setting.sites)
    sites = find_sites(model, example) if setting.sites is None else setting.sites
    if kind.is_batchwise:
        sites = _place_batchwise(model, setting, sites, example)
    rates = setting.rates if isinstance(setting.p, tuple) else setting.rates * len(sites)
    # Layers like these hold a rate and do more than drop, so that no other layer can take their place.
    holders = {site.name for site in existing if not site.is_layer or isinstance(site.module, RATE_HOLDERS)}
    check(
        "kind", kind.fits_inside or not holders.issuperset(sites) or not sites,
        "dropout, since all dropout of the model is inside attention, recurrent layers or functions", setting.kind,
    )  # fmt: skip
    for layer, is_inside in ((None, True), (kind.layer, False)):
        chosen = {site: rate for site, rate in zip(sites, rates, strict=True) if (site in holders) == is_inside}
        if chosen:
            retrofit(model, layer, list(chosen.values()), list(chosen), example=example, before_batch_norm=True)
    return model


def _rates(model: nn.Module) -> list[Site]:
    with warnings.catch_warnings():
        # About layers whose rate is unknown, which are found when the model without dropout is run.
        warnings.simplefilter("ignore")
        return rate_sites.find_sites(model)


def _check_sites(model: nn.Module, existing: list[Site], sites: tuple[str, ...]) -> None:
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    names = {*(site.name for site in existing), *(name for name, _ in modules if name)}
    for site in sites:
        side, _, name = site.rpartition(" ")
        if side not in ("", "before", "after") or name not in names:
            own = ", ".join(site.name for site in existing) or "none"
            wanted = f"names of modules, or such names after 'before' (dropouts of the model: {own})"
            raise ValueError(f"sites must be {wanted}, got {site!r}{did_you_mean(name, names)}")


def _place_batchwise(model: nn.Module, setting: Setting, sites: tuple[str, ...], example: Any) -> tuple[str, ...]:
    """Let feed-forward blocks drop hidden units for the whole batch; return the sites outside of them."""
    wanted = f"all, since {setting.kind} dropout is where the feed-forward blocks are"
    check("sites", setting.sites is None, wanted, setting.sites)
    blocks = retrofit(model, "FeedForward", setting.rates[0], example=example)
    check("kind", bool(blocks), "one that fits the model, which has no feed-forward block", repr(setting.kind))
    inside: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, BatchwiseBlock):
            inside.update(module.modules())
        elif isinstance(module, BatchwiseSequential):
            layers = list[nn.Module](module.children())
            while layers:
                _, activation, length = leading_block(layers)
                inside.update(layers[:length] if activation is not None else ())
                del layers[:length]
    modules = dict(cast("Iterator[tuple[str, nn.Module]]", model.named_modules()))
    return tuple(site for site in sites if modules.get(site) not in inside)
