"""Pass a batch to a model: by name, by position, as the only argument, or its first part alone."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, cast

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

_Result = TypeVar("_Result")
_MAPPING = r"[Dd]ict\b|Mapping|Encoding"
_SEQUENCE = r"\b([Ll]ist|[Tt]uple|Sequence|Iterable|Collection)\b"


@dataclass(frozen=True, slots=True)
class Arguments:
    """One way to pass a batch to a model.

    Attributes:
        args, kwargs: arguments of the model.
        may_include_labels: whether optional arguments receive parts of the batch, which may be labels.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    may_include_labels: bool = False


def run_with(model: nn.Module, batch: Any, run: Callable[[tuple[Any, ...], dict[str, Any]], _Result]) -> _Result:
    """Return the result of `run` for the first arrangement of a batch that the model accepts.

    Raises:
        TypeError: the model accepts no arrangement of the batch.
    """
    if not _is_container(batch):
        return run((batch,), {})
    failed: list[tuple[Arguments, Exception]] = []
    try:
        return _run_first(model, batch, run, failed)
    finally:
        # An error refers to this frame: with the model, they would wait for the garbage collector.
        failed.clear()


def _run_first(
    model: nn.Module,
    batch: Any,
    run: Callable[[tuple[Any, ...], dict[str, Any]], _Result],
    failed: list[tuple[Arguments, Exception]],
) -> _Result:
    labels_reason = ""
    for arguments in arrangements(_signature(model), batch):
        try:
            result = run(arguments.args, arguments.kwargs)
        except Exception as error:
            failed.append((arguments, error))
            if not _is_refusal(error, arguments):
                if not arguments.may_include_labels:
                    break
                labels_reason = f"{type(error).__name__}: {error}"
            continue
        if labels_reason:
            warnings.warn(
                f"batch was audited without its optional parts, with which forward raised {labels_reason}", stacklevel=5
            )
        return result
    # An error inside the model says more than a refused container, and most if the model accepted the whole batch.
    inside = [index for index, (given, error) in enumerate(failed) if not _is_about_container(error, given)]
    if inside and not _is_empty(batch):
        whole = (index for index in inside if [*map(id, failed[index][0].args)] == [id(batch)])
        raise failed[next(whole, inside[-1])][1]
    raise TypeError(_refusal_message(model, batch)) from (failed[-1][1] if failed else None)


def must_take_nothing(model: nn.Module) -> None:
    """Check that a model runs without arguments.

    Raises:
        TypeError: it needs some; the message says that a batch is missing.
    """
    signature = _signature(model)
    if signature is not None and not _fits(signature, Arguments()):
        names = ", ".join(signature.parameters)
        raise TypeError(
            f"inputs must be a batch for {type(model).__name__}.forward ({names}), got none: pass one, as in "
            "audit(model, batch), or a DataLoader"
        )


def arrangements(signature: inspect.Signature | None, batch: Any) -> list[Arguments]:
    """Return the arrangements of a batch that a signature allows, most likely first; all if it is unknown."""
    named = _named_items(batch)
    if named is not None:
        return _named(signature, batch, named)
    if isinstance(batch, (list, tuple)) and not isinstance(batch, PackedSequence):
        return _in_parts(signature, cast("Sequence[Any]", batch))
    return _fitting(signature, [Arguments((batch,))])


def _named(signature: inspect.Signature | None, batch: Any, named: dict[Any, Any]) -> list[Arguments]:
    whole, by_name = Arguments((batch,)), Arguments(kwargs=named)
    if signature is None:
        return [by_name]
    is_annotated = re.search(rf"{_MAPPING}|\b{type(batch).__name__}\b", _annotation(signature)) is not None
    if is_annotated and _fits(signature, whole):
        return [whole]
    if all(isinstance(name, str) for name in named) and _fits(signature, by_name):
        return [by_name]
    return [] if signature.parameters.keys() & named.keys() else _fitting(signature, [whole])


def _in_parts(signature: inspect.Signature | None, batch: Sequence[Any]) -> list[Arguments]:
    whole = _fitting(signature, [Arguments((batch,))])
    first = _first_part(signature, batch)
    positional = _fitting(signature, [Arguments(tuple(batch), may_include_labels=bool(first))])
    if signature is not None:
        positional = [arguments for arguments in positional if not _passes_tensor_as_option(signature, arguments.args)]
    takes_tensor, takes_parts = _takes(signature, type(batch).__name__)
    if takes_parts and not takes_tensor:
        return [*whole, *positional, *first]
    names = getattr(batch, "_fields", None)
    if names is not None and signature is not None:
        by_name = _fitting(signature, [Arguments(kwargs=dict(zip(names, batch, strict=True)))])
        if by_name:
            return by_name
    if takes_tensor and not takes_parts:
        return [*positional, *first, *whole]
    if isinstance(batch, tuple) and names is None:
        return [*positional, *whole, *first]
    return [*whole, *positional, *first]


def _first_part(signature: inspect.Signature | None, batch: Sequence[Any]) -> list[Arguments]:
    """Return arrangements of the inputs in a batch of inputs and labels."""
    first = batch[0] if batch else None
    if _is_container(first):
        return arrangements(signature, first)
    if len(batch) > 1 and (isinstance(first, Tensor) or hasattr(first, "__array_interface__")):
        return _fitting(signature, [Arguments((first,))])
    return []


def _takes(signature: inspect.Signature | None, kind: str) -> tuple[bool, bool]:
    """Whether the first argument is annotated as a tensor, and as a sequence or this kind of container."""
    if signature is None:
        return False, False
    first = next(iter(signature.parameters.values()), None)
    if first is not None and first.kind is inspect.Parameter.VAR_POSITIONAL:
        return True, False
    annotation, before = _annotation(signature), None
    while annotation != before:  # list[Tensor] is no tensor, Union[list[Tensor], Tensor] is
        before, annotation = annotation, re.sub(rf"{_SEQUENCE}\[[^\[\]]*\]", r"\1", annotation)
    return "Tensor" in annotation, re.search(rf"{_SEQUENCE}|\b{kind}\b", annotation) is not None


def _annotation(signature: inspect.Signature) -> str:
    first = next(iter(signature.parameters.values()), None)
    return "" if first is None or first.annotation is first.empty else str(first.annotation)


def _passes_tensor_as_option(signature: inspect.Signature, args: tuple[Any, ...]) -> bool:
    """Whether a tensor would be passed where the default is a bool or a string."""
    parameters = signature.parameters
    bound = signature.bind(*args).arguments
    return any(
        isinstance(value, Tensor) and isinstance(parameters[name].default, (bool, str)) for name, value in bound.items()
    )


def _is_container(batch: Any) -> bool:
    return _named_items(batch) is not None or (
        isinstance(batch, (list, tuple)) and not isinstance(batch, PackedSequence)
    )


def _is_empty(batch: Any) -> bool:
    named = _named_items(batch)
    return not (batch if named is None else named)


def _named_items(batch: Any) -> dict[Any, Any] | None:
    """Return the items of a mapping or the fields of a dataclass; None for anything else."""
    if isinstance(batch, Mapping):
        return dict(cast("Mapping[Any, Any]", batch))
    if is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in fields(batch)}
    return None


def _signature(model: nn.Module) -> inspect.Signature | None:
    try:
        return inspect.signature(model.forward)
    except (TypeError, ValueError):  # not a Python function
        return None


def _fitting(signature: inspect.Signature | None, candidates: Iterable[Arguments]) -> list[Arguments]:
    return [arguments for arguments in candidates if signature is None or _fits(signature, arguments)]


def _fits(signature: inspect.Signature, arguments: Arguments) -> bool:
    try:
        signature.bind(*arguments.args, **arguments.kwargs)
    except TypeError:
        return False
    return True


def _is_refusal(error: Exception, arguments: Arguments) -> bool:
    """Whether an error means that the model does not accept this kind of argument."""
    if isinstance(error, (TypeError, AttributeError, AssertionError)):
        return True
    # TorchScript raises RuntimeError for arguments of the wrong type.
    return _is_about_container(error, arguments) or str(error).lower().startswith("forward() expected")


def _is_about_container(error: Exception, arguments: Arguments) -> bool:
    """Whether an error names the type of a container that was passed whole, or is a failed assertion about it."""
    kinds = [type(arg).__name__ for arg in arguments.args if _is_container(arg)]
    if not kinds or isinstance(error, LookupError):  # a list was accepted, but is too short
        return False
    if isinstance(error, AssertionError):
        return True
    expected = ["tensors?"] if isinstance(error, ValueError) else []  # as in "x must be a tensor"
    return re.search(rf"\b({'|'.join([*kinds, 'sequence', *expected])})\b", str(error), re.IGNORECASE) is not None


def _refusal_message(model: nn.Module, batch: Any) -> str:
    signature = _signature(model)
    parameters: Mapping[str, inspect.Parameter] = {} if signature is None else signature.parameters
    forward, names = f"{type(model).__name__}.forward", ", ".join(parameters)
    kind, named = type(batch).__name__, _named_items(batch)
    if _is_empty(batch):
        return f"inputs must be what {forward} takes ({names}), got an empty {kind}"
    if named is not None:
        unknown = [str(name) for name in named if name not in parameters]
        got = ", ".join(unknown) if unknown else f"only {', '.join(map(str, named))}"
        return f"inputs must be named as the arguments of {forward} ({names}), got {got}"
    accepts_first = signature is None or _fits(signature, Arguments((batch[0],)))
    hint = "; give batch[0] if that is the input" if accepts_first else ""
    return f"inputs must be what {forward} takes ({names}), got {len(batch)} in a {kind}{hint}"
