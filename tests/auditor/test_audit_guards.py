"""Correct models have no findings, and unusual misuse is found."""

from collections import deque

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import dropkit
from dropkit.auditor.data_flow import DataFlow
from dropkit.auditor.operators import OperatorCall, describe
from dropkit.auditor.provenance import Provenance, ProvenanceTable
from dropkit.trace import Origin

X = torch.randn(32, 16, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Linear, ReLU, dropout, whatever `then` does, Linear."""

    def __init__(self, then):
        super().__init__()
        self.first, self.dropout, self.last = nn.Linear(16, 16), nn.Dropout(0.3), nn.Linear(16, 16)
        self.then = then

    def forward(self, x):
        return self.last(self.then(self.dropout(self.first(x).relu())))


class Only(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.first, self.dropout, self.function = nn.Linear(16, 16), nn.Dropout(0.3), function

    def forward(self, x):
        return self.function(self, self.first(x))


def codes(model, x=X):
    return [finding.code for finding in dropkit.audit(model, x).findings]


RANDOM = {
    "noise added": lambda h: h + torch.randn_like(h),
    "noise multiplied": lambda h: h * torch.rand_like(h),
    "permutation": lambda h: h[torch.randperm(32)],
    "random rows": lambda h: h[torch.randint(0, 32, (8,))],
    "normal": lambda h: torch.normal(h, 0.1),
    "rrelu": lambda h: F.rrelu(h, training=True),
    "random matrix": lambda h: h @ torch.randn(16, 16),
    "rows of noise": lambda h: torch.cat([h, torch.randn(2, 16)]),
    "token in place": lambda h: torch.where(torch.rand(32, 1) < 0.3, torch.ones(16), h),
    "flipped half the time": lambda h: torch.where((torch.rand(32) < 0.5)[:, None], h.flip(-1), h),
    "gumbel": lambda h: F.gumbel_softmax(h),
}


@pytest.mark.parametrize("random", RANDOM)
def test_other_random_operations_beside_dropout_are_no_dropout(random):
    report = dropkit.audit(Net(RANDOM[random]), X)

    assert [site.kind for site in report.sites] == ["Dropout"]
    assert report.findings == ()


def test_dropout_of_random_numbers_has_its_rate():
    model = nn.Sequential(nn.RReLU(), nn.Dropout(0.5), nn.Linear(16, 2))

    report = dropkit.audit(model, X)

    assert report.findings == ()
    assert 0.3 < report.sites[0].rate < 0.7


def keep(model, h):
    model.kept = model.dropout(h)
    return h


@pytest.mark.parametrize(
    "leave",
    [
        keep,
        lambda model, h: deque([model.dropout(h)]),
        lambda model, h: model.dropout(h).detach().numpy(),
        lambda model, h: model.dropout(h).tolist(),
    ],
    ids=["attribute", "deque", "array", "list"],
)
def test_an_output_that_no_operator_reads_may_be_used(leave):
    assert codes(Only(leave)) == []


def test_random_choices_of_integers_are_no_dropout():
    def greedy(model, h):
        best = model.dropout(h).argmax(-1)
        return torch.where(torch.rand(32) < 0.1, torch.randint(0, 16, (32,)), best)

    assert [site.kind for site in dropkit.audit(Only(greedy), X).sites] == ["Dropout"]


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x):
        return F.dropout(self.linear(x), 0.2, self.training).relu()


class Outer(nn.Module):
    def __init__(self, reentrant, preserve, block):
        super().__init__()
        self.block, self.last = block(), nn.Linear(16, 2)
        self.how = {"use_reentrant": reentrant, "preserve_rng_state": preserve}

    def forward(self, x):
        return self.last(checkpoint(lambda x: self.block(x), x, **self.how))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("preserve", [True, False])
@pytest.mark.parametrize("block", [Inner, lambda: nn.TransformerEncoderLayer(16, 2, 32)], ids=["function", "encoder"])
def test_functions_in_checkpoints_are_recognised_in_recomputation(reentrant, preserve, block):
    report = dropkit.audit(Outer(reentrant, preserve, block), X.clone().requires_grad_())

    assert {finding.code for finding in report.findings} == (set() if preserve else {"DRP305"})
    assert report.backward_error is None
    assert len(report.sites) == (1 if block is Inner else 4)


def test_reused_memory_has_no_provenance_of_its_former_content():
    class Reused(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.first, self.second = nn.Linear(16, 16), nn.Dropout(0.3), nn.Dropout(0.3)

        def forward(self, x):
            with torch.no_grad():
                h = self.linear(self.first(x))
            return (h + self.second(torch.ones(32, 16))).relu()

    assert [codes(Reused()) for _ in range(5)] == [[]] * 5


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_counted(layout):
    x = torch.nested.nested_tensor([torch.randn(30, 4), torch.randn(50, 4)], layout=layout)

    (site,) = dropkit.audit(nn.Sequential(nn.Dropout(0.3)), x).sites

    assert site.visits[0].mask_elements == 320


def test_higher_order_operators_run():
    model = Only(lambda model, h: torch.cond(h.sum() > 0, lambda t: t * 2, lambda t: t * 3, (model.dropout(h),)))

    assert [site.kind for site in dropkit.audit(model.requires_grad_(False), X).sites] == ["Dropout"]


def test_a_frozen_part_is_no_finding():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.3)), nn.Linear(16, 2)

        def train(self, mode=True):
            super().train(mode)
            self.body.eval()
            return self

        def forward(self, x):
            return self.head(self.body(x))

    assert codes(Frozen()) == []


def by_index(model, h):
    h = model.first(model.dropout(h)).relu().clone()
    h[torch.rand_like(h) < 0.3] = 0
    return (h / 0.7).relu()


def switched_on(model, h):
    model.dropout.train()
    return model.dropout(h).relu()


def added_to_itself(model, h):
    model.dropout.inplace = True
    return (h + model.dropout(h)).relu()


def frozen_alone(model, h):
    model.dropout.eval()
    return model.dropout(h).relu()


def seeded(model, h):
    torch.manual_seed(0)
    return model.dropout(h).relu()


WRONG = {
    "DRP101": lambda model, h: F.dropout(h, 0.3).relu(),
    "DRP104": switched_on,
    "DRP108": by_index,
    "DRP205": frozen_alone,
    "DRP304": lambda model, h: F.dropout(model.dropout(h).T, 0.3, model.training).T.relu(),
    "DRP307": seeded,
    "DRP401": added_to_itself,
    "DRP406": lambda model, h: F.cross_entropy(model.dropout(h), torch.zeros(32, dtype=torch.long)),
}


@pytest.mark.parametrize("code", WRONG)
def test_unusual_misuse_is_found(code):
    assert codes(Only(WRONG[code])) == [code]


def test_the_rate_of_a_skipped_module_is_not_unused():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.rest = nn.Linear(16, 2), Inner()
            self.rest.dropout = 0.3

        def forward(self, x):
            return self.linear(x)

    assert codes(Sometimes()) == []


@pytest.mark.parametrize("preserve", [True, False])
def test_recomputation_of_a_function_is_no_new_site(preserve):
    """Recomputation runs outside the modules."""

    def recomputed(model, h):
        def drop(h):
            return F.dropout(h * 2, 0.2, model.training).relu()

        return model.dropout(checkpoint(drop, h, use_reentrant=False, preserve_rng_state=preserve).relu() + 1).relu()

    report = dropkit.audit(Only(recomputed), X)

    assert [site.kind for site in report.sites] == ["dropout", "Dropout"]
    assert [finding.code for finding in report.findings] == ([] if preserve else ["DRP305"])


def test_a_new_tensor_has_no_provenance():
    """Its memory may have belonged to a tensor that had one."""
    table, tensor = ProvenanceTable(), torch.zeros(3)
    table.set(tensor, Provenance(Origin("Linear", "Linear")))
    zeros = torch.ops.aten.zeros.default

    call = OperatorCall.of(zeros, describe(zeros), ([3],), {}, tensor, None)
    DataFlow(table, lambda tensor: False).record_operator(call)

    assert table.get(tensor) is None


class Block(nn.Module):
    """A checkpoint that runs a method, as is usual."""

    def __init__(self, preserve, drop):
        super().__init__()
        self.linear, self.preserve, self.drop = nn.Linear(16, 16), preserve, drop

    def inner(self, x):
        return self.linear(self.drop(x, self.training))

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False, preserve_rng_state=self.preserve)


DROPS = {
    "function": lambda x, training: F.dropout(x, 0.3, training),
    "made in the call": lambda x, training: nn.Dropout(0.3).train(training)(x),
    "attention": lambda x, training: F.scaled_dot_product_attention(x, x, x, dropout_p=0.3 * training),
}


@pytest.mark.parametrize("preserve", [True, False])
@pytest.mark.parametrize("drop", DROPS)
def test_blocks_that_recompute_the_same_line_are_separate_sites(drop, preserve):
    model = nn.Sequential(nn.Linear(16, 16), *(Block(preserve, DROPS[drop]) for _ in range(3)))

    report = dropkit.audit(model, X)

    assert {finding.code for finding in report.findings} == (set() if preserve else {"DRP305"})
    assert len(report.sites) == 3


def test_a_rate_that_the_parent_applies_is_not_unused():
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.child = Inner()
            self.child.forward = lambda x: x * 2
            self.child.hidden_dropout = 0.2

        def forward(self, x):
            return F.dropout(self.child(x), 0.2, self.training).relu()

    assert codes(Parent()) == []


def test_the_rate_of_a_module_skipped_in_training_is_not_unused():
    class Skipped(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.last = Inner(), nn.Linear(16, 2)
            self.part.dropout = 0.3

        def forward(self, x):
            return self.last(x if self.training else self.part(x))

    assert codes(Skipped()) == []
