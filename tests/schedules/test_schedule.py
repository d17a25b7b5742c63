"""A schedule moves the rates of the sites that it names, resumes, and refuses what is out of range."""

import copy
import math

import pytest
import torch
from helpers.compare import agree, compiled, observe
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import dropkit
from dropkit.schedules import Constant, Early, Linear, RateSchedule


class DropPath(nn.Module):
    """Another library's layer, which stores its rate under another name."""

    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob


class Block(nn.Module):
    """A module that passes its rate to a function."""

    def __init__(self):
        super().__init__()
        self.attention_dropout, self.keep, self.drop_last = 0.3, 0.5, True
        self.proj = nn.Linear(2, 2)


def model():
    return nn.ModuleDict({
        "torch": nn.Dropout(0.5), "ours": dropkit.nn.Dropout2d(0.4), "path": DropPath(0.2), "off": nn.Dropout(0.0),
        "attention": nn.MultiheadAttention(4, 2, dropout=0.1), "lstm": nn.LSTM(2, 2, 2, dropout=0.6),
        "gru": nn.GRU(2, 2, 1), "block": Block(),
    })  # fmt: skip


LAYERS = {"torch": 0.5, "ours": 0.4, "path": 0.2, "off": 0.0, "attention": 0.1, "lstm": 0.6}


def halved(rates):
    return {name: rate / 2 for name, rate in rates.items()}


def test_by_default_all_layers_that_drop_move_in_proportion():
    """torch's, dropkit's, other libraries', those inside attention and recurrent networks; no others."""
    subject = model()

    schedule = RateSchedule(subject, Constant(0.5))

    assert schedule.get_last_rate() == halved(LAYERS)
    assert (subject["path"].drop_prob, subject["attention"].dropout, subject["lstm"].dropout) == (0.1, 0.05, 0.3)
    assert [site.name for site in schedule.others] == ["block.attention_dropout"]


@pytest.mark.parametrize(
    ("sites", "chosen"),
    [
        ("torch", ["torch"]),
        ("*t*", ["torch", "path", "attention", "lstm", "block.attention_dropout"]),
        (["ours", "block.*"], ["ours", "block.attention_dropout"]),
        (lambda name, module: isinstance(module, nn.Dropout), ["torch", "off"]),
    ],
    ids=["name", "pattern", "list", "function"],
)
def test_sites_can_be_chosen(sites, chosen):
    """By name, pattern, or function; only these move, and the rates of modules that call functions are among them."""
    subject = model()

    schedule = RateSchedule(subject, Constant(0.0), sites=sites)

    assert list(schedule.get_last_rate()) == chosen
    moved = {site.name for site in (*schedule.sites, *schedule.others) if site.rate == 0} - {"off"}
    assert moved == set(chosen) - {"off"}


@pytest.mark.parametrize(
    "record",
    [record for record in dropkit.nn.COMPOSED if record.rate == "p" and not record.learns_rate],
    ids=lambda record: record.name,
)
def test_layers_made_of_others_are_sites(record):
    """By default, as all layers that drop."""
    module = record.make(0.5)

    schedule = RateSchedule(module, Constant(0.5))

    assert "" in schedule.get_last_rate()
    assert getattr(module, record.rate) == 0.25


def test_the_dropouts_inside_a_wrapper_are_sites():
    """Each rate of a recurrent network's wrapper belongs to a module, which a schedule moves."""
    module = dropkit.nn.RecurrentDropout(torch.nn.LSTM(4, 4), input_p=0.4, output_p=0.2)

    RateSchedule(module, Constant(0.5))

    assert (module.input_p, module.output_p) == (0.2, 0.1)


def test_a_rate_can_replace_those_of_the_sites():
    """With relative=False also rates of 0 move."""
    assert set(RateSchedule(model(), Constant(0.15), relative=False).get_last_rate().values()) == {0.15}


def test_the_text_names_every_site_and_what_was_left():
    """One line for each, with the rate before and now."""
    text = str(RateSchedule(model(), Constant(0.5)))

    assert "torch: dropkit Dropout 0.5 -> 0.25\n" in text
    assert "lstm: torch LSTM 0.6 -> 0.3\n" in text
    assert text.endswith("not chosen: block.attention_dropout at 0.3")


def test_steps_follow_the_function():
    """One value a step from step 0 on, at the rate that the model drops with."""
    subject = nn.Sequential(nn.Dropout(1.0))
    schedule = RateSchedule(subject, lambda step: 0.5**step)

    rates = []
    for _ in range(4):
        rates.append(float((subject(torch.ones(10_000)) == 0).float().mean()))
        schedule.step()

    bounds = [5 * math.sqrt(p * (1 - p) / 10_000) for p in (1, 0.5, 0.25, 0.125)]
    assert all(abs(rate - 0.5**step) <= bounds[step] for step, rate in enumerate(rates))
    assert schedule.last_step == 4


@pytest.mark.parametrize("is_moved", [False, True], ids=["new_model", "model_that_was_moved"])
def test_a_schedule_resumes(is_moved):
    """From its state the rates continue, whatever rates the model had when the schedule was made again."""
    subject = model()
    schedule = RateSchedule(subject, Linear(10))
    for _ in range(4):
        schedule.step()

    resumed = RateSchedule(subject if is_moved else model(), Linear(10))
    resumed.load_state_dict(copy.deepcopy(schedule.state_dict()))

    for _ in range(8):
        schedule.step()
        resumed.step()
        assert resumed.get_last_rate() == schedule.get_last_rate()
    assert schedule.get_last_rate() == LAYERS


def test_the_state_of_other_sites_is_refused():
    """An error names both."""
    state = RateSchedule(model(), Constant()).state_dict()

    with pytest.raises(ValueError, match=r"state must be of the sites 0, got one of torch, ours"):
        RateSchedule(nn.Sequential(nn.Dropout()), Constant()).load_state_dict(state)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RateSchedule(nn.Linear(2, 2), Constant()), ValueError, "sites must choose rates of the model, got"),
        (lambda: RateSchedule(model(), Constant(), sites=["torch", "tocrh"]), ValueError, "got 'tocrh'; it has torch,"),
        (lambda: RateSchedule(nn.Dropout(0.0), Constant()), ValueError, "relative must be False where all rates are 0"),
        (lambda: RateSchedule(nn.Dropout(0.5), Constant(3)), ValueError, "got 1.5, 3 times 0.5, at step 0 for "),
        (lambda: RateSchedule(nn.Dropout(0.5), Constant(math.nan)), ValueError, "got nan"),
        (lambda: RateSchedule(nn.Dropout(0.5), lambda step: None), TypeError, "must return a number, got None at step"),
        (lambda: RateSchedule(nn.Dropout(0.5), 0.5), TypeError, "rate must be a function of the step, got 0.5"),
        (lambda: RateSchedule(torch.relu, Constant()), TypeError, "model must be a torch.nn.Module, got builtin"),
    ],
    ids=["no_site", "no_match", "all_off", "too_high", "nan", "no_number", "no_function", "no_model"],
)  # fmt: skip
def test_what_cannot_work_is_refused(make, error, message):
    """With the argument, what is wanted, and what came."""
    with pytest.raises(error) as raised:
        make()

    assert message in str(raised.value)


def test_a_rate_out_of_range_changes_nothing():
    """All rates, and the step, are those before the step that failed."""
    schedule = RateSchedule(model(), lambda step: 1 + step)
    before = schedule.get_last_rate()

    with pytest.raises(ValueError, match=r"got 1\.2, 2 times 0\.6, at step 1 for lstm: torch LSTM"):
        schedule.step()

    assert (schedule.get_last_rate(), schedule.last_step) == (before, 0)


def test_a_layer_that_hides_its_rate_is_named_in_a_warning():
    """It is not left out in silence."""

    class MyDropout(nn.Module):
        pass

    with pytest.warns(UserWarning, match=r"no schedule can move the rates of 1: none of the attributes p, drop_prob"):
        RateSchedule(nn.Sequential(nn.Dropout(), MyDropout()), Constant())


def test_torchs_modules_are_kept_if_asked():
    """With convert=False a seed gives torch's masks at the rate of the schedule."""
    subject = nn.Sequential(nn.Dropout(0.5))
    RateSchedule(subject, Constant(0.5), convert=False)

    torch.manual_seed(0)
    output = subject(torch.ones(64))

    torch.manual_seed(0)
    assert type(subject[0]) is nn.Dropout
    assert torch.equal(output, nn.functional.dropout(torch.ones(64), 0.25))


@pytest.mark.parametrize("is_compiled_first", [False, True], ids=["scheduled_first", "compiled_first"])
def test_a_training_compiles_one_graph(is_compiled_first):
    """Each step, forward and backward, has the bits of eager mode; rates of 0 are among them."""
    network = nn.Sequential(
        nn.Linear(8, 16), nn.Dropout(0.5), nn.ReLU(), dropkit.nn.DropPath(0.2), nn.Linear(16, 16), nn.AlphaDropout(0.3),
        nn.Dropout(0.0),
    )  # fmt: skip
    counter, x = CompileCounterWithBackend("aot_eager"), torch.randn(32, 8, requires_grad=True)
    if is_compiled_first:
        fast = compiled(network, counter)
        schedule = RateSchedule(fast, Early(20, decays=True))
    else:
        schedule = RateSchedule(network, Early(20, decays=True))
        fast = compiled(network, counter)

    outputs = []
    for _ in range(24):
        assert agree(observe(fast, x), observe(network, x))
        outputs.append(network(x))
        schedule.step()

    assert counter.frame_count == 1
    assert set(schedule.get_last_rate()) == {"1", "3", "5", "6"}
    assert torch.equal(outputs[-1], network.eval()(x))


def test_checkpoints_of_the_model_are_as_before():
    """No entry is added."""
    subject = model()
    before = list(subject.state_dict())

    RateSchedule(subject, Constant())

    assert list(subject.state_dict()) == before
