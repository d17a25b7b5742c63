"""Models of torchvision, timm and transformers without pretrained weights: all dropouts are seen, without findings."""

from collections import Counter

import pytest
import torch
from torch import nn

import dropkit
from dropkit.diagnostics import Severity
from dropkit.trace import Phase

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def libraries(torchvision):
    """torchvision's models, timm's constructor and transformers."""
    import timm
    import transformers

    transformers.logging.set_verbosity_error()
    return torchvision.models, timm.create_model, transformers


TOKENS = torch.arange(24).reshape(2, 12)
SMALL = {"vocab_size": 100, "num_attention_heads": 4, "hidden_size": 32}


def resnet(vision, timm, hub):
    return timm("resnet26", drop_rate=0.2, drop_path_rate=0.1, drop_block_rate=0.1, num_classes=10), torch.randn(
        2, 3, 64, 64
    )


def plain_resnet(vision, timm, hub):
    return vision.resnet18(num_classes=10), torch.randn(2, 3, 64, 64)


def efficientnet(vision, timm, hub):
    return vision.efficientnet_b0(num_classes=10), torch.randn(2, 3, 64, 64)


def vit(vision, timm, hub):
    model = vision.VisionTransformer(32, 8, 2, 4, 32, 64, dropout=0.1, attention_dropout=0.1, num_classes=10)
    return model, torch.randn(2, 3, 32, 32)


def timm_vit(vision, timm, hub):
    rates = dict.fromkeys(("drop_rate", "attn_drop_rate", "proj_drop_rate", "pos_drop_rate", "drop_path_rate"), 0.2)
    return timm("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, **rates), torch.randn(2, 3, 32, 32)


def bert(vision, timm, hub):
    return hub.BertModel(hub.BertConfig(num_hidden_layers=2, intermediate_size=64, **SMALL)), TOKENS


def eager_bert(vision, timm, hub):
    config = hub.BertConfig(num_hidden_layers=2, intermediate_size=64, attn_implementation="eager", **SMALL)
    return hub.BertModel(config), TOKENS


def gpt(vision, timm, hub):
    return hub.GPT2LMHeadModel(hub.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4)), TOKENS


def t5(vision, timm, hub):
    config = hub.T5Config(vocab_size=100, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    return hub.T5Model(config), {"input_ids": TOKENS, "decoder_input_ids": TOKENS}


class Sentences(nn.Module):
    """An LSTM classifier."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(100, 16)
        self.drop = nn.Dropout(0.1)
        self.lstm = nn.LSTM(16, 16, 2, batch_first=True, dropout=0.2)
        self.head = nn.Linear(16, 2)

    def forward(self, tokens):
        return self.head(self.drop(self.lstm(self.drop(self.embed(tokens)))[0][:, -1]))


def lstm(vision, timm, hub):
    return Sentences(), TOKENS


# Number of active sites by kind, and number of sites that are not reached.
SITES = {
    resnet: ({"DropPath": 7, "DropBlock2d": 4, "dropout": 1}, 0),
    plain_resnet: ({}, 0),
    efficientnet: ({"StochasticDepth": 9, "Dropout": 1}, 7),
    vit: ({"Dropout": 7, "MultiheadAttention": 2}, 0),
    # attn_drop is not called: its rate is passed to the function.
    timm_vit: ({"Dropout": 8, "DropPath": 2, "scaled_dot_product_attention": 2}, 2),
    bert: ({"Dropout": 5, "scaled_dot_product_attention": 2}, 2),
    eager_bert: ({"Dropout": 5, "dropout": 2}, 2),
    gpt: ({"Dropout": 5, "scaled_dot_product_attention": 2}, 2),
    t5: ({"Dropout": 9, "scaled_dot_product_attention": 3}, 0),
    lstm: ({"Dropout": 1, "LSTM": 1}, 0),
}


@pytest.mark.parametrize("make", SITES, ids=lambda make: make.__name__)
def test_every_site_of_a_library_model_is_seen_without_findings(make, libraries):
    model, inputs = make(*libraries)
    active, unreached = SITES[make]

    report = dropkit.audit(model, **inputs) if isinstance(inputs, dict) else dropkit.audit(model, inputs)

    assert Counter(site.kind for site in report.sites if site.was_active(Phase.TRAIN)) == active
    assert sum(not site.was_reached for site in report.sites) == unreached
    assert not any(site.was_active(Phase.EVAL) for site in report.sites)
    assert [finding for finding in report.findings if finding.severity is not Severity.INFO] == []


@pytest.mark.parametrize("make", [resnet, vit, bert, gpt, lstm], ids=lambda make: make.__name__)
def test_a_library_model_is_restored(make, libraries):
    model, inputs = make(*libraries)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    flags, chance = [module.training for module in model.modules()], torch.get_rng_state()

    dropkit.audit(model, inputs)

    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(parameter.grad is None for parameter in model.parameters())
