"""predict: the predictions of a model with their uncertainty, from many passes with dropout active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from dropkit.arguments import check
from dropkit.mc.accumulators import Accumulator
from dropkit.mc.all_batches import run_all_batches
from dropkit.mc.measures import ClassMeasures, entropy, measures_of
from dropkit.mc.options import Options, Settings, signature
from dropkit.mc.outputs import check_probabilities, sum_to_one
from dropkit.mc.passes import Passes
from dropkit.mc.prediction import AnyPrediction, ClassPrediction, MultilabelPrediction, ValuePrediction
from dropkit.mc.results import PartialResult, join

if TYPE_CHECKING:
    from typing_extensions import Unpack


@overload
def predict(
    model: nn.Module,
    inputs: Any,
    samples: int = 50,
    task: Literal["classification"] = "classification",
    **options: Unpack[Options],
) -> ClassPrediction: ...
@overload
def predict(
    model: nn.Module, inputs: Any, samples: int = 50, *, task: Literal["multilabel"], **options: Unpack[Options]
) -> MultilabelPrediction: ...
@overload
def predict(
    model: nn.Module, inputs: Any, samples: int, task: Literal["multilabel"], **options: Unpack[Options]
) -> MultilabelPrediction: ...
@overload
def predict(
    model: nn.Module, inputs: Any, samples: int = 50, *, task: Literal["regression"], **options: Unpack[Options]
) -> ValuePrediction: ...
@overload
def predict(
    model: nn.Module, inputs: Any, samples: int, task: Literal["regression"], **options: Unpack[Options]
) -> ValuePrediction: ...
@overload
def predict(
    model: nn.Module, inputs: Any, samples: int = 50, *, task: Mapping[Any, Any], **options: Unpack[Options]
) -> dict[Any, AnyPrediction]: ...
@overload
def predict(
    model: nn.Module, inputs: Any, samples: int, task: Mapping[Any, Any], **options: Unpack[Options]
) -> dict[Any, AnyPrediction]: ...
@overload
def predict(
    model: nn.Module, inputs: Any, samples: int = 50, task: str = "classification", **options: Unpack[Options]
) -> AnyPrediction: ...
@torch.no_grad()
def predict(
    model: nn.Module,
    inputs: Any,
    samples: int = 50,
    task: str | Mapping[Any, Any] = "classification",
    **options: Unpack[Options],
) -> AnyPrediction | dict[Any, AnyPrediction]:
    r"""Run a model many times with dropout active, and estimate its predictions and their uncertainty.

    The model runs in evaluation mode with every dropout active, as in `sampling`, and is left unchanged. The mask of an
    input depends on `seed`, the dropout, the sample and the input's number alone: batch size, threads and processes do
    not change it. Samples are summed as they come, so that memory is needed for one batch. Under `torchrun` (an
    initialised `torch.distributed`) the processes share the batches, and each returns the whole result.

    Args:
        model: any module with dropout; not scripted. Compiled ones run uncompiled.
        inputs: a tensor, array or frame (N, ...), a mapping of them (the model's named arguments) or a tuple of them
            (its arguments); a `Dataset`; or anything that yields batches, such as a `DataLoader`. The first item of a
            batch that is a list or tuple is the input, unless there is a `prepare_batch`. Floats of arrays and frames
            are converted to the model's dtype.
        samples: passes for each input, T.
        task: "classification" of logits of classes of which one is true; "multilabel", where several labels may be
            true; or "regression" of values. For several heads a mapping from their names to tasks: the entry or
            attribute of what the model returns, or the index of an item. All are predicted by the same passes.
        masks: which inputs share the masks of a sample: none ("input"), `chunk` neighbours ("chunk") or all ("shared").
            Shared masks are much faster, and each input's estimates are as good, but the errors of neighbours are
            correlated. If None, "chunk" for classification with more than `chunk` inputs, else "input".
        plan: "iid" for independent samples; "stratified" for a Latin hypercube, in which each unit is kept equally
            often over the samples. The error of the mean is then never noticeably larger, and mostly much smaller;
            `standard_error` is that of independent samples, which is an upper bound.
        seed: 64 bits; from torch's generator if None.
        target_standard_error: stop sampling an input when the standard error of its mean is at most this, checked after
            every 10 samples. If None, every input takes `samples` passes.
        keep_samples: keep the output of each pass as `r.samples`, (T, N, ...).
        measures: which measures to compute: "all", "basic" (without those that need votes or the jackknife), or names;
            the mean always. If None, "all" where an input has at most 256 numbers of output, else "basic".
        errors: compute standard errors, which takes about as long as all measures. If None, with all measures alone.
        outputs: what the model returns. For classes and labels "logits" (or log-probabilities), or "probabilities"; a
            single logit, (N,) or (N, 1), is that of the second of two classes. For values "values", or both their mean
            and the noise around it, as two tensors, a distribution or a tensor whose second dimension holds both:
            "mean_log_variance", "mean_variance" or "mean_std". By name for several heads. If None, the first.
        class_dim: the dimension of classes in the output (or of mean and noise); dimension 0 holds the inputs. If None:
            1 of two dimensions; of more the one that follows from the model's configuration (`num_labels`,
            `num_classes`, `vocab_size`) or the shape of the labels, and an error if none does: -1 for (N, T, C), 1 for
            (N, C, H, W). By name for several heads.
        labels: true classes; used for their shape, to find `class_dim`, and for the places to ignore. If None, those
            that a loader yields in pairs with the inputs or as "labels". By name for several heads.
        ignore_index: this label marks padding, where an input has several labels; 255 in many segmentation data sets.
        valid: where outputs count, (N, ...), true or not 0: a tensor for all inputs, the name of an argument of the
            model, or a function of its arguments. If None, `attention_mask` or `src_key_padding_mask` among the named
            arguments where outputs have its shape; False for everywhere. Padding is nan, and `r.valid` tells it.
        p: the rate of every dropout, in (0, 1), also of those whose rate is 0. It reaches the weights of attention,
            where a rate is passed, and what lies between the layers of recurrent networks; notes name what it does not
            reach. If None, each has its own.
        sites: names of modules, as in `named_modules`, or patterns such as "encoder.*": dropout is active in these
            alone. If None, everywhere.
        output: from what the model returns to the tensor of outputs, or to what the heads are taken from. If None: the
            tensor itself, `.logits` or `.out`, the entry "logits" or "out", the only entry, the first item of a tuple;
            `start_logits` and `end_logits` of answers together, (N, 2, T).
        prepare_batch: from a batch to the argument of the model, or a tuple or mapping of its arguments.
        batch_dim: the dimension of the inputs in the arguments of the model: 1 for sequence-first models. Arguments
            that do not have as many there have them first. A mapping gives it by argument, name or position. In outputs
            it is found; results have the inputs first.
        example_ids: (N,), integers in [0, 2**32), the number of each input, which selects its masks; its position in
            `inputs` if None.
        batch_size: inputs in a pass, where `inputs` are not batches already.
        chunk: inputs that share masks with "chunk".
        replay: compute what comes before the first active dropout once for all samples.
        thin: leave dropped units out of matrix products where inputs share masks.
        plain: run each input once without dropout as well, for `r.plain`, with which reports compare the samples.
        progress: show a progress bar. If None, show it on a terminal, after two seconds.

    Returns:
        A `ClassPrediction`, `MultilabelPrediction` or `ValuePrediction`, in float32 on the CPU; for several heads a
        dict of them. Where batches differ in length, shorter ones are padded with nan at their end.

    Raises:
        NothingToSample: no dropout in the model is active.
        TypeError: `model` is not a module, or `inputs` hold no tensor.
        ValueError: an argument is out of range.

    Source: Gal, Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning",
    ICML 2016, arXiv:1506.02142.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3))
        >>> r = dropkit.mc.predict(model, torch.randn(5, 4), samples=20, seed=0)
        >>> r.mean.shape, r.mutual_information.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """
    settings = Settings.of(samples, task, options)
    return run_all_batches(model, inputs, settings, Passes)


# What `help` shows; type checkers see `Options`.
predict.__signature__ = signature(predict)  # pyright: ignore[reportFunctionMemberAccess] (functions take attributes)


@torch.no_grad()
def from_samples(probabilities: Tensor) -> ClassPrediction:
    """Compute the same measures from samples of your own: the members of an ensemble, or a single pass.

    Args:
        probabilities: class probabilities along the last dimension, the samples along the first.

    Shape:
        probabilities: (T, N, ..., classes).

    Raises:
        ValueError: there are fewer than three dimensions, or numbers that are not probabilities.

    Example:
        >>> members = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]])
        >>> from_samples(members).mean
        tensor([[0.7000, 0.3000]])
    """
    probabilities = torch.as_tensor(probabilities).float()
    has_shape = probabilities.dim() >= 3 and len(probabilities) > 0
    check("probabilities", has_shape, "(T, N, ..., classes) with T of at least 1", tuple(probabilities.shape))
    wanted = "of classes, with a sum of 1 over the last dimension"
    for dim in range(2, probabilities.dim() - 1):
        if sum_to_one(probabilities.movedim(dim, -1)):
            wanted += f", as probabilities.movedim({dim}, -1) has"
    check_probabilities(probabilities, "probabilities", wanted)
    settings = Settings(samples=len(probabilities), task="classification", measures="all", keep_samples=True)
    known = measures_of(ClassMeasures)
    accumulator = Accumulator(settings, known, lambda p: {"value": p, "sample entropy": entropy(p)})
    accumulator.add(0, probabilities)
    prediction = join([PartialResult.of(accumulator)], "classification", [])
    assert isinstance(prediction, ClassPrediction)
    return prediction
