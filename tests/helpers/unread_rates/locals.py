"""Rates that nothing reads, and rates that something may read: local names and keyword arguments."""

from helpers.rate_projects import HEAD, net

UNREAD = {
    "a local of a configuration": (
        "DRP207",
        {
            "a.py": HEAD
            + net(
                ('rate = 3\ndrop_rate = config.get("dropout", 0.1)\nself.out = nn.Linear(rate, 3)'),
                "return self.out(self.fc(x))",
                "config",
            )
        },
    ),
    "a local of arguments": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def build_model(args):\n"
                "    dropout = args.dropout\n"
                "    return nn.Sequential(nn.Linear(args.width, 64), nn.ReLU(), nn.Linear(64, 2))\n"
            )
        },
    ),
    "an item in a local": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def make(params):\n"
                "    hidden = params['hidden']\n"
                "    drop_prob = params['drop_prob']\n"
                "    return nn.Linear(hidden, hidden)\n"
            )
        },
    ),
    "a number in a local": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "def make(width):\n"
                "    dropout_rate = 0.3\n"
                "    return nn.Sequential(nn.Linear(width, width), nn.GELU())\n"
            )
        },
    ),
    "a local beside a literal": (
        "DRP207",
        {
            "a.py": HEAD
            + net(
                ("dropout = config.dropout\nself.dropout = nn.Dropout(0.5)"),
                "return self.dropout(self.fc(x))",
                "config",
            )
        },
    ),
    "a local by getattr": (
        "DRP207",
        {
            "a.py": HEAD
            + ('def make(opt):\n    drop_rate = getattr(opt, "drop_rate", 0.1)\n    return nn.Linear(opt.n, opt.n)\n')
        },
    ),
    "popped": (
        "DRP207",
        {"a.py": HEAD + net(('kwargs.pop("dropout", 0.1)\nself.more = make(**kwargs)'), arguments="**kwargs")},
    ),
    "popped into a local": (
        "DRP207",
        {
            "a.py": HEAD
            + net(('dropout = kwargs.pop("dropout", 0.1)\nself.more = make(**kwargs)'), arguments="**kwargs")
        },
    ),
    "popped in a function": (
        "DRP207",
        {
            "a.py": HEAD
            + ("def head(width, **kw):\n    kw.pop('drop_rate', 0.2)\n    return nn.Linear(width, width, **kw)\n")
        },
    ),
    "popped into an attribute": (
        "DRP203",
        {"a.py": HEAD + net('self.dropout = kwargs.pop("dropout", 0.1)', arguments="**kwargs")},
    ),
    "local: json config": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "import json\n"
                "def build(path):\n"
                "    config = json.load(open(path))\n"
                "    n = config['n']\n"
                "    dropout = config['dropout']\n"
                "    return nn.Sequential(nn.Linear(n, n), nn.ReLU())\n"
            ),
        },
    ),
    "local: main args": (
        "DRP207",
        {
            "a.py": HEAD
            + ("def main(args):\n    drop_prob = args.drop_prob\n    model = Model(args.width)\n    model.train()\n"),
        },
    ),
    "local: hparams in init": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "class N(nn.Module):\n"
                "    def __init__(self, hparams):\n"
                "        super().__init__()\n"
                "        p_drop = hparams['p_drop']\n"
                "        width = hparams['width']\n"
                "        self.l = nn.Linear(width, width)\n"
                "    def forward(self, x):\n"
                "        return self.l(x)\n"
            ),
        },
    ),
    "local tuple": (
        "DRP207",
        {
            "a.py": HEAD
            + ("def make(cfg):\n    width, dropout = cfg.width, cfg.dropout\n    return nn.Linear(width, width)\n"),
        },
    ),
    "pop get": (
        "DRP207",
        {
            "a.py": HEAD
            + (
                "class N(nn.Module):\n"
                "    def __init__(self, n, **kwargs):\n"
                "        super().__init__()\n"
                "        drop = kwargs.get('dropout', 0.1)\n"
                "        self.l = nn.Linear(n, n)\n"
                "    def forward(self, x):\n"
                "        return self.l(x)\n"
            ),
        },
    ),
}
MAYBE_READ = {
    "a local that is read": {
        "a.py": HEAD
        + (
            "def make(args):\n"
            "    dropout = args.dropout\n"
            "    return nn.Sequential(nn.Linear(3, 3), nn.Dropout(dropout))\n"
        )
    },
    "a local of a closure": {
        "a.py": HEAD
        + (
            "def make(args):\n"
            "    dropout = args.dropout\n"
            "    def layer():\n"
            "        return nn.Dropout(dropout)\n"
            "    return layer\n"
        )
    },
    "the setting itself": {
        "a.py": HEAD
        + (
            "def make(args):\n"
            "    dropout = args.dropout\n"
            "    return nn.Sequential(nn.Linear(3, 3), nn.Dropout(args.dropout))\n"
        )
    },
    "all locals": {"a.py": HEAD + "def make(args):\n    dropout = args.dropout\n    return Model(**locals())\n"},
    "stripped": {
        "a.py": HEAD
        + ("def head(width, **kw):\n    kw.pop('drop_rate', None)\n    return nn.Linear(width, width, **kw)\n")
    },
    "popped and used": {
        "a.py": HEAD
        + net('self.drop = nn.Dropout(kwargs.pop("dropout", 0.1))', "return self.fc(self.drop(x))", "**kwargs")
    },
    "local used in fstring": {
        "a.py": HEAD
        + (
            "def main(args):\n"
            "    dropout = args.dropout\n"
            "    name = f'm_{dropout}'\n"
            "    return nn.Linear(args.n, args.n), name\n"
        ),
    },
    "local passed on": {
        "a.py": HEAD + ("def main(args):\n    dropout = args.dropout\n    return Model(args.n, dropout=dropout)\n"),
    },
    "reassign": {
        "a.py": HEAD
        + (
            "def main(args):\n"
            "    dropout = args.dropout\n"
            "    if args.small:\n"
            "        dropout = 0.0\n"
            "    return nn.Dropout(dropout)\n"
        ),
    },
}
