"""Rates that nothing reads, and rates that something may read: fields of configurations."""

from helpers.rate_projects import HEAD, net

MODEL = """
class MLP(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(cfg.width, cfg.width), nn.ReLU(), nn.Linear(cfg.width, 10))

    def forward(self, x):
        return self.fc(x)
"""
CONFIG = """from dataclasses import dataclass


@dataclass
class ModelConfig:
    width: int = 64
    dropout: float = 0.1
"""
UNREAD = {
    "a field": ("DRP207", {"model.py": CONFIG + HEAD + MODEL}),
    "a field in another file": (
        "DRP207",
        {
            "config.py": CONFIG,
            "model.py": "from config import ModelConfig\n" + HEAD + MODEL.replace("cfg)", "cfg: ModelConfig)"),
        },
    ),
    "a field that is only logged": (
        "DRP207",
        {
            "config.py": CONFIG,
            "model.py": HEAD + MODEL,
            "main.py": (
                "import wandb\n"
                "from dataclasses import asdict\n"
                "from config import ModelConfig\n"
                "from model import MLP\n"
                "cfg = ModelConfig()\n"
                "wandb.init(config=asdict(cfg))\n"
                "print(cfg.width)\n"
                "model = MLP(cfg)\n"
            ),
        },
    ),
    "a field of a frozen record": (
        "DRP207",
        {
            "model.py": CONFIG.replace("@dataclass", "@dataclass(frozen=True)").replace("dropout", "attn_drop_rate")
            + HEAD
            + MODEL
        },
    ),
    "a field of a named tuple": (
        "DRP207",
        {
            "model.py": "from typing import NamedTuple\nclass TrainArgs(NamedTuple):\n    width: int = 3\n"
            "    drop_path_rate: float = 0.2\n" + HEAD + MODEL.replace("cfg", "args")
        },
    ),
    "a field, and a literal rate": (
        "DRP207",
        {"model.py": CONFIG + HEAD + MODEL.replace("nn.ReLU(),", "nn.ReLU(), nn.Dropout(0.5),")},
    ),
    "a field of hyperparameters": (
        "DRP207",
        {
            "conf.py": CONFIG.replace("ModelConfig", "Hyperparameters"),
            "train.py": "from conf import Hyperparameters\n"
            + HEAD
            + MODEL.replace("cfg", "hp")
            + "model = MLP(Hyperparameters())\n",
        },
    ),
    "a field, in a package": (
        "DRP207",
        {
            "pkg/config.py": CONFIG,
            "pkg/__init__.py": "from .config import ModelConfig\n",
            "pkg/model.py": "from . import ModelConfig\n"
            + HEAD
            + MODEL.replace("cfg.", "self.config.").replace(
                "        self.fc", "        self.config = cfg\n        self.fc", 1
            ),
        },
    ),
    "field: pydantic": (
        "DRP207",
        {
            "settings.py": (
                "from pydantic import BaseModel\n"
                "\n"
                "class HParams(BaseModel):\n"
                "    d_model: int = 8\n"
                "    attention_dropout: float = 0.1\n"
                "    residual_dropout: float = 0.1\n"
            ),
            "net.py": HEAD
            + (
                "class Block(nn.Module):\n"
                "    def __init__(self, hparams):\n"
                "        super().__init__()\n"
                "        self.attn = nn.MultiheadAttention(hparams.d_model, 2, dropout=hparams.attention_dropout)\n"
                "    def forward(self, x):\n"
                "        return self.attn(x, x, x)[0]\n"
            ),
            "train.py": (
                "from settings import HParams\n"
                "from net import Block\n"
                "hparams = HParams()\n"
                "print(hparams.d_model)\n"
                "model = Block(hparams)\n"
            ),
        },
    ),
    "field: nested": (
        "DRP207",
        {
            "c.py": (
                "from dataclasses import dataclass, field\n"
                "\n"
                "@dataclass\n"
                "class EncoderConfig:\n"
                "    depth: int = 2\n"
                "    drop_path_rate: float = 0.1\n"
                "\n"
                "@dataclass\n"
                "class Config:\n"
                "    encoder: EncoderConfig = field(default_factory=EncoderConfig)\n"
                "    lr: float = 1e-3\n"
            ),
            "m.py": HEAD
            + (
                "from c import Config, EncoderConfig\n"
                "\n"
                "class Encoder(nn.Module):\n"
                "    def __init__(self, cfg: EncoderConfig):\n"
                "        super().__init__()\n"
                "        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(cfg.depth))\n"
                "    def forward(self, x):\n"
                "        for l in self.layers:\n"
                "            x = l(x)\n"
                "        return x\n"
            ),
        },
    ),
    "field: argparse into dataclass, saved json": (
        "DRP207",
        {
            "a.py": (
                "import json\n"
                "from dataclasses import dataclass, asdict\n" + HEAD + "@dataclass\n"
                "class TrainConfig:\n"
                "    hidden: int = 32\n"
                "    dropout_prob: float = 0.25\n"
                "    epochs: int = 3\n"
                "\n"
                "def main(config: TrainConfig):\n"
                "    json.dump(asdict(config), open('c.json', 'w'))\n"
                "    model = nn.Sequential(nn.Linear(4, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 2))\n"
                "    for _ in range(config.epochs):\n"
                "        pass\n"
            ),
        },
    ),
    "field: GPT": (
        "DRP207",
        {
            "gpt.py": (
                "from dataclasses import dataclass\n" + HEAD + "@dataclass\n"
                "class GPTConfig:\n"
                "    n_embd: int = 768\n"
                "    n_head: int = 12\n"
                "    dropout: float = 0.0\n"
                "\n"
                "class CausalSelfAttention(nn.Module):\n"
                "    def __init__(self, config):\n"
                "        super().__init__()\n"
                "        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)\n"
                "        self.n_head = config.n_head\n"
                "    def forward(self, x):\n"
                "        q, k, v = self.c_attn(x).chunk(3, -1)\n"
                "        return F.scaled_dot_product_attention(q, k, v, is_causal=True)\n"
            ),
        },
    ),
}
MAYBE_READ = {
    "a field that is read": {"model.py": CONFIG + HEAD + MODEL.replace("nn.ReLU()", "nn.Dropout(cfg.dropout)")},
    "a field that another file reads": {
        "config.py": CONFIG,
        "model.py": HEAD + MODEL.replace("nn.ReLU()", "nn.Dropout(cfg.dropout)"),
    },
    "a field that a string names": {
        "config.py": CONFIG,
        "model.py": "from config import ModelConfig\n"
        + HEAD
        + MODEL.replace("nn.ReLU()", 'nn.Dropout(getattr(cfg, "dropout"))'),
    },
    "fields that are unpacked": {
        "config.py": CONFIG,
        "main.py": (
            "from dataclasses import asdict\n"
            "from config import ModelConfig\n"
            "from net import Net\n"
            "cfg = ModelConfig()\n"
            "print(cfg.width)\n"
            "model = Net(**asdict(cfg))\n"
        ),
        "net.py": HEAD + net("self.drop = nn.Dropout(dropout)", "return self.fc(self.drop(x))"),
    },
    "a record of which nothing is read": {"config.py": CONFIG},
    "a choice": {"model.py": CONFIG.replace("dropout: float = 0.1", "use_dropout: bool = True") + HEAD + MODEL},
    "lib config read by getattr fmt": {
        "a.py": (
            "from dataclasses import dataclass\n" + HEAD + "@dataclass\n"
            "class Config:\n"
            "    n: int = 3\n"
            "    enc_dropout: float = 0.1\n"
            "    dec_dropout: float = 0.1\n"
            "def make(cfg, part):\n"
            "    return nn.Sequential(nn.Linear(cfg.n, cfg.n), nn.Dropout(getattr(cfg, f'{part}_dropout')))\n"
        ),
    },
    "field via self.cfg": {
        "a.py": (
            "from dataclasses import dataclass\n" + HEAD + "@dataclass\n"
            "class Config:\n"
            "    n: int = 3\n"
            "    dropout: float = 0.1\n"
        ),
        "b.py": HEAD
        + (
            "class M(nn.Module):\n"
            "    def __init__(self, cfg):\n"
            "        super().__init__()\n"
            "        self.cfg = cfg\n"
            "        self.l = nn.Linear(cfg.n, cfg.n)\n"
            "    def forward(self, x):\n"
            "        return F.dropout(self.l(x), self.cfg.dropout, self.training)\n"
        ),
    },
    "replace kwargs": {
        "a.py": (
            "from dataclasses import dataclass\n" + HEAD + "@dataclass\n"
            "class Config:\n"
            "    n: int = 3\n"
            "    dropout: float = 0.1\n"
        ),
        "b.py": (
            "from a import Config\n" + HEAD + "def build(config):\n"
            "    print(config.n)\n"
            "    return Model(**vars(config))\n"
        ),
    },
    "iterate fields": {
        "a.py": (
            "import dataclasses\n"
            "from dataclasses import dataclass\n" + HEAD + "@dataclass\n"
            "class Config:\n"
            "    n: int = 3\n"
            "    dropout: float = 0.1\n"
            "    def kwargs(self):\n"
            "        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}\n"
            "def f(cfg): return nn.Linear(cfg.n, cfg.n)\n"
        ),
    },
}
