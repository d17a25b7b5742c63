"""Tensors in containers: which containers are entered, in which order, and what becomes of cycles."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dropkit.containers import map_leaves, tensors, tensors_in_objects

A, B = torch.zeros(1), torch.ones(1)
Pair = namedtuple("Pair", "first second")


@dataclass
class Output:
    logits: torch.Tensor
    loss: object = None


class Slotted:
    __slots__ = ("tensor",)

    def __init__(self, tensor):
        self.tensor = tensor


ARGUMENTS = {
    "tensor": (A, [A]),
    "none": (None, []),
    "list": ([A, 1, B], [A, B]),
    "named tuple": (Pair(A, B), [A, B]),
    "dict": ({"a": A, "b": B}, [A, B]),
    "nested": ((A, [{"b": (B,)}]), [A, B]),
    "twice": ([A, (A,)], [A, A]),
    "parameter": ([nn.Parameter(A)], [A]),
    "empty": ([(), {}, []], []),
}
OBJECTS = {
    "set": (frozenset({A}), [A]),
    "mapping": (UserDict(a=A), [A]),
    "dataclass": (Output(A, loss=B), [A, B]),
    "attributes": (SimpleNamespace(a=A, inner=SimpleNamespace(b=[B])), [A, B]),
}
NOT_ENTERED = {"module": nn.Linear(1, 1), "class": Output, "slots": Slotted(A), "text": "A"}


def same(found, expected):
    return all(one is other or torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(("value", "expected"), ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("find", [tensors, tensors_in_objects])
def test_tensors_of_arguments_are_found_in_order(find, value, expected):
    """Lists, tuples and dicts are entered by both; what occurs twice is found twice."""
    assert same(list(find(value)), expected)


@pytest.mark.parametrize(("value", "expected"), OBJECTS.values(), ids=OBJECTS)
def test_only_tensors_in_enters_objects(value, expected):
    """What torch's functions never take is entered on request alone."""
    assert same(tensors_in_objects([value]), expected)
    assert list(tensors([value])) == []


@pytest.mark.parametrize("value", NOT_ENTERED.values(), ids=NOT_ENTERED)
def test_modules_classes_and_text_are_leaves(value):
    """A module's parameters are not among the tensors of an argument that holds it."""
    assert tensors_in_objects([value]) == []
    assert list(tensors([value])) == []


@pytest.mark.parametrize("find", [tensors, tensors_in_objects])
def test_a_container_in_itself_is_entered_once(find):
    """Cycles end."""
    cycle = [A]
    cycle.append({"again": cycle})

    assert same(list(find(cycle)), [A])


def test_objects_that_refer_to_each_other_are_entered_once():
    """A child that knows its parent gives its tensors once."""
    parent, child = SimpleNamespace(), SimpleNamespace(tensor=A)
    parent.child, child.parent = child, parent

    assert same(tensors_in_objects(parent), [A])


@pytest.mark.parametrize(("depth", "count"), [(9, 1), (10, 0)])
def test_objects_are_entered_to_a_depth(depth, count):
    """Nine containers around a tensor are opened, not ten."""
    value = A
    for _ in range(depth):
        value = [value]

    assert len(tensors_in_objects(value)) == count
    assert len(list(tensors(value))) == 1


def test_leaves_are_mapped_in_lists_tuples_and_dicts():
    """The containers are new, of the same kind; a subclass of list or tuple is a leaf, one of dict becomes a dict."""
    pair = Pair(1, 2)
    value = [1, (2, {"three": [3]}), OrderedDict(four=4), pair]

    mapped = map_leaves(lambda leaf: leaf if leaf is pair else -leaf, value)

    assert mapped == [-1, (-2, {"three": [-3]}), {"four": -4}, pair]
    assert mapped[3] is pair
    assert type(mapped[2]) is dict
    assert value[0] == 1
