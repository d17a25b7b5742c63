"""Rates that nothing reads, and rates that something may read: arguments of functions."""

from helpers.rate_projects import HEAD, net

UNREAD = {
    "a function": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def block(inp, out, dropout):\n"
                "    return nn.Sequential(nn.Linear(inp, out), nn.ReLU())\n"
                "\n"
                "model = nn.Sequential(block(3, 4, 0.1), block(4, 3, 0.1))\n"
            )
        },
    ),
    "a function in another file": (
        "DRP207",
        {
            "layers.py": HEAD
            + (
                "def build_head(dim, classes, dropout=0.0):\n"
                "    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, classes))\n"
            ),
            "model.py": HEAD
            + "from layers import build_head\n"
            + net("self.head = build_head(3, 3, dropout=dropout)", "return self.head(x)"),
        },
    ),
    "a function of a package": (
        "DRP207",
        {
            "lib/__init__.py": "",
            "lib/layers.py": HEAD
            + (
                "def mlp(sizes, drop_rate=0.1):\n"
                "    return nn.Sequential(*[nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])\n"
            ),
            "lib/model.py": HEAD
            + "from . import layers\n"
            + net("self.head = layers.mlp([3, 3], drop_rate=dropout)", "return self.head(x)"),
        },
    ),
    "a method": (
        "DRP207",
        {
            "a.py": HEAD
            + net("self.stage = self._make_stage(3, dropout)", "return self.stage(x)")
            + (
                "    def _make_stage(self, n, dropout_rate):\n"
                "        return nn.Sequential(*[nn.Linear(3, 3) for _ in range(n)])\n"
            )
        },
    ),
    "a static method": (
        "DRP207",
        {
            "a.py": HEAD
            + net("self.stage = self.make(3, drop=dropout)", "return self.stage(x)")
            + ("    @staticmethod\n    def make(n, drop=0.0):\n        return nn.Linear(n, n)\n")
        },
    ),
    "a function around": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def build(cfg):\n"
                "    def layer(n, dropout):\n"
                "        return nn.Linear(n, n)\n"
                "    return nn.Sequential(layer(3, cfg.dropout), layer(3, cfg.dropout))\n"
            )
        },
    ),
    "fn: keyword, two calls": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def conv_block(i, o, drop_prob=0.2):\n"
                "    layers = [nn.Conv2d(i, o, 3), nn.BatchNorm2d(o), nn.ReLU()]\n"
                "    return nn.Sequential(*layers)\n"
                "\n"
                "class U(nn.Module):\n"
                "    def __init__(self, drop_prob):\n"
                "        super().__init__()\n"
                "        self.a = conv_block(1, 8, drop_prob)\n"
                "        self.b = conv_block(8, 8, drop_prob)\n"
                "    def forward(self, x):\n"
                "        return self.b(self.a(x))\n"
            ),
        },
    ),
    "fn: functional helper": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def attention(q, k, v, mask=None, dropout=None):\n"
                "    s = q @ k.transpose(-2, -1)\n"
                "    if mask is not None:\n"
                "        s = s.masked_fill(mask == 0, -1e9)\n"
                "    return s.softmax(-1) @ v\n"
                "\n"
                "class A(nn.Module):\n"
                "    def __init__(self, dropout=0.1):\n"
                "        super().__init__()\n"
                "        self.dropout = nn.Dropout(dropout)\n"
                "    def forward(self, x):\n"
                "        return attention(x, x, x, dropout=self.dropout)\n"
            ),
        },
    ),
    "fn: other file positional": (
        "DRP207",
        {
            "blocks.py": HEAD
            + ("def ffn(d, h, dropout):\n    return nn.Sequential(nn.Linear(d, h), nn.GELU(), nn.Linear(h, d))\n"),
            "m.py": HEAD
            + (
                "from blocks import ffn\n"
                "class M(nn.Module):\n"
                "    def __init__(self, d, dropout):\n"
                "        super().__init__()\n"
                "        self.f = ffn(d, 4 * d, dropout)\n"
                "    def forward(self, x):\n"
                "        return self.f(x)\n"
            ),
        },
    ),
    "fn: method _build": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "class R(nn.Module):\n"
                "    def __init__(self, n, dropout=0.3):\n"
                "        super().__init__()\n"
                "        self.layers = self._build_layers(n, dropout=dropout)\n"
                "    def _build_layers(self, n, dropout):\n"
                "        return nn.ModuleList([nn.Linear(4, 4) for _ in range(n)])\n"
                "    def forward(self, x):\n"
                "        for l in self.layers:\n"
                "            x = l(x)\n"
                "        return x\n"
            ),
        },
    ),
    "class positional (203)": (
        "DRP203",
        {
            "a.py": HEAD
            + (
                "class Sub(nn.Module):\n"
                "    def __init__(self, d, dropout):\n"
                "        super().__init__()\n"
                "        self.l = nn.Linear(d, d)\n"
                "    def forward(self, x):\n"
                "        return self.l(x)\n"
                "\n"
                "class M(nn.Module):\n"
                "    def __init__(self, d, dropout):\n"
                "        super().__init__()\n"
                "        self.s = Sub(d, dropout)\n"
                "    def forward(self, x):\n"
                "        return self.s(x)\n"
            ),
        },
    ),
}
MAYBE_READ = {
    "a function that nobody calls": {
        "a.py": HEAD + ("def block(inp, out, dropout):\n    return nn.Linear(inp, out)\n")
    },
    "a function that gets no rate": {
        "a.py": HEAD + ("def block(inp, dropout=0.0):\n    return nn.Linear(inp, inp)\n\nmodel = block(3)\n")
    },
    "functions in a table": {
        "a.py": HEAD
        + (
            "def wide(n, dropout):\n"
            "    return nn.Linear(n, n)\n"
            "\n"
            "HEADS = {'wide': wide}\n"
            "model = wide(3, dropout=0.1)\n"
        )
    },
    "a method of a signature": {
        "a.py": HEAD
        + net("self.stage = self.make(3, dropout)", "return self.stage(x)")
        + (
            "    def make(self, n, dropout):\n"
            "        return nn.Linear(n, n)\n"
            "\n"
            "class Other(Net):\n"
            "    def make(self, n, dropout):\n"
            "        return nn.Dropout(dropout)\n"
        )
    },
    "a template": {
        "a.py": HEAD
        + ("def block(n, dropout):\n    check(n)\n    raise NotImplementedError\n\nmodel = block(3, 0.1)\n")
    },
    "method hook signature": {
        "a.py": HEAD
        + (
            "class Base(nn.Module):\n"
            "    def make(self, n, dropout):\n"
            "        raise NotImplementedError\n"
            "    def __init__(self, n, dropout):\n"
            "        super().__init__()\n"
            "        self.x = self.make(n, dropout)\n"
            "class A(Base):\n"
            "    def make(self, n, dropout):\n"
            "        return nn.Linear(n, n)\n"
            "class B(Base):\n"
            "    def make(self, n, dropout):\n"
            "        return nn.Dropout(dropout)\n"
        ),
    },
    "backends": {
        "a.py": HEAD
        + (
            "def eager(q, k, v, dropout=0.0):\n"
            "    return F.dropout((q @ k).softmax(-1), dropout) @ v\n"
            "def flex(q, k, v, dropout=0.0):\n"
            "    return flex_attention(q, k, v)\n"
            "BACK = {'eager': eager, 'flex': flex}\n"
            "class A(nn.Module):\n"
            "    def forward(self, x):\n"
            "        return BACK[self.kind](x, x, x, dropout=0.1 if self.training else 0.0)\n"
        ),
    },
    "del": {
        "a.py": HEAD + ("def block(n, dropout):\n    del dropout\n    return nn.Linear(n, n)\nm = block(3, 0.1)\n"),
    },
    "raise if": {
        "a.py": HEAD
        + (
            "def block(n, dropout=0.0):\n"
            "    if dropout:\n"
            "        raise ValueError('no')\n"
            "    return nn.Linear(n, n)\n"
            "m = block(3, 0.1)\n"
        ),
    },
}
