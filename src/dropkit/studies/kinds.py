"""The kinds of dropout that a study compares, and how each is put into a model.

A layer of `dropkit.nn` that takes `p` is a kind by its name. Another kind is one more entry in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

import dropkit.nn as layers
from dropkit.arguments import check
from dropkit.functional import dropout
from dropkit.patch.retrofit import retrofit
from dropkit.studies.setting import NONE, Setting


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
        is_advised: whether it may be recommended.
    """

    description: str
    layer: str | type[nn.Module]
    is_batchwise: bool = False
    is_advised: bool = True


KINDS: dict[str, Kind] = {
    "dropout": Kind("each element by itself", "Dropout"),
    "dropout2d": Kind("whole channels of feature maps, elements elsewhere", "auto"),
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
    check("kind", name in names, f"{', '.join([NONE, *KINDS])}, or the name of a layer of dropkit.nn", repr(name))
    return Kind(f"layer of dropkit.nn, {name}", name)


def find_sites(model: nn.Module, example: Any = None) -> tuple[str, ...]:
    """Return the names of the sites of a model: its dropouts, or else the places after its activations.

    Args:
        model: any module.
        example: an input, with which places are found by the data flow.

    Raises:
        ValueError: it has neither.
    """
    found = tuple(change.name for change in retrofit(model, None, 0.5, "existing", dry_run=True))
    return found or tuple(dict.fromkeys(change.name for change in retrofit(model, example=example, dry_run=True)))


def place_dropout(model: nn.Module, setting: Setting, example: Any = None) -> nn.Module:
    """Give a model the dropout of `setting` and no other, in place; return it.

    Raises:
        ValueError: the kind does not exist or cannot be placed, or a site is not in the model.
    """
    retrofit(model, None, 0.0, "existing")
    if setting.is_baseline:
        return model
    kind, sites = kind_of(setting.kind), setting.sites
    places: Sequence[str] = find_sites(model, example) if sites is None else sites
    p: Any = list(setting.p) if isinstance(setting.p, tuple) else setting.p
    retrofit(model, kind.layer, p, places, example=example, before_batch_norm=True)
    if kind.is_batchwise:
        is_everywhere = sites is None
        check("sites", is_everywhere, f"all, since {setting.kind} dropout is where the feed-forward blocks are", sites)
        changed = retrofit(model, "FeedForward", p, example=example)
        check("kind", bool(changed), "one that fits the model, which has no feed-forward block", repr(setting.kind))
    return model
