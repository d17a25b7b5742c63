"""How a model is given a batch that a loader yields: by name, by position, as the one argument, or its first part."""

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
    """One way to give a batch.

    Attributes:
        args, kwargs: of the model.
        may_be_labels: parts of the batch are given for optional arguments.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    may_be_labels: bool = False


def run_with(model: nn.Module, batch: Any, run: Callable[[tuple[Any, ...], dict[str, Any]], _Result]) -> _Result:
    """What `run` returns for the first arrangement of a batch that the model takes.

    Raises:
        TypeError: the model takes the batch in no way.
    """
    if not _is_container(batch):
        return run((batch,), {})
    failed: list[tuple[Arguments, Exception]] = []
    ignored = None
    for way in arrangements(_signature(model), batch):
        try:
            result = run(way.args, way.kwargs)
        except Exception as error:
            failed.append((way, error))
            if not _is_refusal(error, way):
                if not way.may_be_labels:
                    break
                ignored = error
            continue
        if ignored is not None:
            reason = f"{type(ignored).__name__}: {ignored}"
            warnings.warn(
                f"batch was audited without its optional parts, with which forward raised {reason}", stacklevel=4
            )
        return result
    # What went wrong inside the model says more than that it takes no list, and most where it did take the list.
    own = [(way, error) for way, error in failed if not _is_about_container(error, way)]
    if own and not _is_empty(batch):
        raise next((error for way, error in own if len(way.args) == 1 and way.args[0] is batch), own[-1][1])
    raise TypeError(_unfit(model, batch)) from (failed[-1][1] if failed else None)


def arrangements(signature: inspect.Signature | None, batch: Any) -> list[Arguments]:
    """The ways to give a batch that a signature allows, the likeliest first; all, where it is not known."""
    named = _by_name(batch)
    if named is not None:
        return _named(signature, batch, named)
    if isinstance(batch, (list, tuple)) and not isinstance(batch, PackedSequence):
        return _in_parts(signature, cast("Sequence[Any]", batch))
    return _fitting(signature, [Arguments((batch,))])


def _named(signature: inspect.Signature | None, batch: Any, named: dict[Any, Any]) -> list[Arguments]:
    whole, by_name = Arguments((batch,)), Arguments(kwargs=named)
    if signature is None:
        return [by_name]
    asked_for = re.search(rf"{_MAPPING}|\b{type(batch).__name__}\b", _annotation(signature)) is not None
    if asked_for and _fits(signature, whole):
        return [whole]
    if all(isinstance(name, str) for name in named) and _fits(signature, by_name):
        return [by_name]
    return [] if signature.parameters.keys() & named.keys() else _fitting(signature, [whole])


def _in_parts(signature: inspect.Signature | None, batch: Sequence[Any]) -> list[Arguments]:
    whole = _fitting(signature, [Arguments((batch,))])
    alone = _first_part(signature, batch)
    placed = _fitting(signature, [Arguments(tuple(batch), may_be_labels=bool(alone))])
    if signature is not None:
        placed = [way for way in placed if not _gives_tensors_for_options(signature, way.args)]
    takes_tensor, takes_parts = _takes(signature, type(batch).__name__)
    if takes_parts and not takes_tensor:
        return [*whole, *placed, *alone]
    names = getattr(batch, "_fields", None)
    if names is not None and signature is not None:
        by_name = _fitting(signature, [Arguments(kwargs=dict(zip(names, batch, strict=True)))])
        if by_name:
            return by_name
    if takes_tensor and not takes_parts:
        return [*placed, *alone, *whole]
    return [*placed, *whole, *alone] if isinstance(batch, tuple) and names is None else [*whole, *placed, *alone]


def _first_part(signature: inspect.Signature | None, batch: Sequence[Any]) -> list[Arguments]:
    """The inputs of a pair that a loader yields, without the labels."""
    first = batch[0] if batch else None
    if _is_container(first):
        return arrangements(signature, first)
    if len(batch) > 1 and (isinstance(first, Tensor) or hasattr(first, "__array_interface__")):
        return _fitting(signature, [Arguments((first,))])
    return []


def _takes(signature: inspect.Signature | None, kind: str) -> tuple[bool, bool]:
    """Whether the first argument is said to be a tensor, and to be a sequence or of this kind."""
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


def _gives_tensors_for_options(signature: inspect.Signature, args: tuple[Any, ...]) -> bool:
    """Whether a tensor would be given where the default is a flag or a word."""
    parameters = signature.parameters
    given = signature.bind(*args).arguments
    return any(
        isinstance(one, Tensor) and isinstance(parameters[name].default, (bool, str)) for name, one in given.items()
    )


def _is_container(batch: Any) -> bool:
    return _by_name(batch) is not None or (isinstance(batch, (list, tuple)) and not isinstance(batch, PackedSequence))


def _is_empty(batch: Any) -> bool:
    named = _by_name(batch)
    return not (batch if named is None else named)


def _by_name(batch: Any) -> dict[Any, Any] | None:
    """The parts of a mapping, or of a dataclass, by their names."""
    if isinstance(batch, Mapping):
        return dict(cast("Mapping[Any, Any]", batch))
    if is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in fields(batch)}
    return None


def _signature(model: nn.Module) -> inspect.Signature | None:
    try:
        return inspect.signature(model.forward)
    except (TypeError, ValueError):  # not Python's
        return None


def _fitting(signature: inspect.Signature | None, ways: Iterable[Arguments]) -> list[Arguments]:
    return [way for way in ways if signature is None or _fits(signature, way)]


def _fits(signature: inspect.Signature, way: Arguments) -> bool:
    try:
        signature.bind(*way.args, **way.kwargs)
    except TypeError:
        return False
    return True


def _is_refusal(error: Exception, way: Arguments) -> bool:
    """Whether an error is about the kind of an argument."""
    if isinstance(error, (TypeError, AttributeError, AssertionError)):
        return True
    # TorchScript checks arguments itself, and raises RuntimeError.
    return _is_about_container(error, way) or str(error).lower().startswith("forward() expected")


def _is_about_container(error: Exception, way: Arguments) -> bool:
    """Whether an error says the kind of a container that was given as an argument by itself, or asserts another."""
    kinds = [type(one).__name__ for one in way.args if _is_container(one)]
    if not kinds or isinstance(error, LookupError):  # a list that is too short is a list nevertheless
        return False
    if isinstance(error, AssertionError):
        return True
    wanted = ["tensors?"] if isinstance(error, ValueError) else []  # as in "x must be a tensor"
    return re.search(rf"\b({'|'.join([*kinds, 'sequence', *wanted])})\b", str(error), re.IGNORECASE) is not None


def _unfit(model: nn.Module, batch: Any) -> str:
    signature = _signature(model)
    parameters: Mapping[str, inspect.Parameter] = {} if signature is None else signature.parameters
    forward, wanted = f"{type(model).__name__}.forward", ", ".join(parameters)
    kind, named = type(batch).__name__, _by_name(batch)
    if _is_empty(batch):
        return f"inputs must be what {forward} takes ({wanted}), got an empty {kind}"
    if named is not None:
        odd = [str(name) for name in named if name not in parameters]
        got = ", ".join(odd) if odd else f"only {', '.join(map(str, named))}"
        return f"inputs must be named as the arguments of {forward} ({wanted}), got {got}"
    can_take_one = signature is None or _fits(signature, Arguments((batch[0],)))
    hint = "; give batch[0] if that is the input" if can_take_one else ""
    return f"inputs must be what {forward} takes ({wanted}), got {len(batch)} in a {kind}{hint}"
