"""The ways in which each package documents Monte Carlo dropout, as functions with one signature.

A form takes (model, inputs, samples, batch) and returns the mean probabilities, their entropy and the mutual
information. The model returns logits (N, classes). Where a package leaves the reduction to the caller, all use the
same.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from functools import partial

import torch
from helpers.torchvision_import import import_torchvision
from torch import Tensor, nn

from dropkit import mc

Result = tuple[Tensor, Tensor, Tensor]
Form = Callable[[nn.Module, Tensor, int, int], Result]


def dropkit(masks: str, plan: str, model: nn.Module, inputs: Tensor, samples: int, batch: int) -> Result:
    r = mc.predict(model, inputs, samples, masks=masks, plan=plan, batch_size=batch, chunk=2048, seed=0)
    return r.mean, r.entropy, r.mutual_information


def naive(model: nn.Module, inputs: Tensor, samples: int, batch: int) -> Result:
    """Put the dropout modules in training mode and loop, keeping sums instead of all samples."""
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.train()

    def of_batch(x: Tensor) -> Result:
        mean, expected = torch.zeros(()), torch.zeros(())
        for _ in range(samples):
            p = model(x).softmax(-1)
            mean, expected = mean + p, expected + entropy(p)
        total = entropy(mean / samples)
        return mean / samples, total, total - expected / samples

    result = by_batch(of_batch, inputs, batch)
    model.eval()
    return result


def baal(kind: str, model: nn.Module, inputs: Tensor, samples: int, batch: int) -> Result:
    """Call `ModelWrapper.predict_on_batch`: all samples as one batch (its default), in a loop, or with its cache."""
    import_torchvision()
    import structlog
    from baal.bayesian.caching_utils import MCCachingModule
    from baal.bayesian.dropout import MCDropoutModule
    from baal.modelwrapper import ModelWrapper, TrainingArgs

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    model = copy.deepcopy(model).eval()  # it is patched in place
    if kind == "cached":
        model = MCCachingModule(model)
    settings = TrainingArgs(batch_size=batch, workers=0, use_cuda=False, replicate_in_memory=kind == "batched")
    wrapper = ModelWrapper(MCDropoutModule(model).eval(), settings)
    return by_batch(lambda x: measures(wrapper.predict_on_batch(x, samples).permute(2, 0, 1)), inputs, batch)


def torch_uncertainty(at_once: bool, model: nn.Module, inputs: Tensor, samples: int, batch: int) -> Result:
    """Call `mc_dropout`: all samples as one batch (its default), or in a loop."""
    import_torchvision()
    from torch_uncertainty.methods import mc_dropout

    sampled = mc_dropout(model, num_estimators=samples, on_batch=at_once).eval()
    return by_batch(lambda x: measures(sampled(x).unflatten(0, (samples, len(x)))), inputs, batch)


def lightning_uq_box(model: nn.Module, inputs: Tensor, samples: int, batch: int) -> Result:
    """Call `MCDropoutClassification.predict_step`, which loops, and compute the mutual information of its logits."""
    import_torchvision()
    from lightning_uq_box.uq_methods import MCDropoutClassification

    sampled = MCDropoutClassification(model, num_mc_samples=samples, loss_fn=nn.CrossEntropyLoss())

    def of_batch(x: Tensor) -> Result:
        step = sampled.predict_step(x)
        expected = entropy(step["logits"].softmax(1).transpose(1, 2)).mean(1)
        return step["pred"], step["pred_uct"], step["pred_uct"] - expected

    return by_batch(of_batch, inputs, batch)


OURS: dict[str, Form] = {
    "dropkit, masks=input": partial(dropkit, "input", "iid"),
    "dropkit, masks=chunk": partial(dropkit, "chunk", "iid"),
}
PEERS: dict[str, Form] = {
    "baal, at once": partial(baal, "batched"),
    "baal, loop": partial(baal, "loop"),
    "baal, loop with its cache": partial(baal, "cached"),
    "torch-uncertainty, at once": partial(torch_uncertainty, True),
    "torch-uncertainty, loop": partial(torch_uncertainty, False),
    "lightning-uq-box, loop": lightning_uq_box,
}
NAIVE = "naive loop"
FORMS: dict[str, Form] = {**OURS, NAIVE: naive, **PEERS}


def entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


def measures(logits: Tensor) -> Result:
    """Reduce logits (samples, N, classes)."""
    p = logits.softmax(-1)
    mean = p.mean(0)
    return mean, entropy(mean), entropy(mean) - entropy(p).mean(0)


def by_batch(of_batch: Callable[[Tensor], Result], inputs: Tensor, batch: int) -> Result:
    with torch.no_grad():
        first, second, third = zip(*[of_batch(x) for x in inputs.split(batch)], strict=True)
        return torch.cat(first), torch.cat(second), torch.cat(third)
