"""The names under which files of a project know each other's functions and methods.

A function is "module.function", a method "Class.method", what a package or a registry has "package.*".
"""

from __future__ import annotations

from pathlib import PurePath

from dropkit.lint.semantic.definitions import FunctionDefinition
from dropkit.lint.semantic.model import SourceFile

# Libraries whose functions switch no mode of a model that they are given.
LIBRARIES = frozenset(
    {"torch", "numpy", "tqdm", "sklearn", "pandas", "matplotlib", "os", "sys", "json", "time", "math", "random", "copy",
     "pathlib", "argparse", "collections", "itertools", "functools", "torchvision", "builtins", "logging", "wandb",
     "scipy", "PIL", "pickle", "typing", "re", "yaml", "datasets", "seaborn", "torchmetrics", "click"}
)  # fmt: skip
# Libraries that train, and switch modes themselves.
TRAINING_LIBRARIES = frozenset(
    {"lightning", "pytorch_lightning", "transformers", "ignite", "accelerate", "keras", "fastai", "catalyst",
     "mmengine", "mmcv", "composer", "trl", "sentence_transformers", "flair", "skorch", "avalanche", "torchrl",
     "stable_baselines3"}
)  # fmt: skip


def module_key(source: SourceFile, dotted: str) -> str:
    """The last two parts of a dotted name: "metrics.evaluate" of `project.metrics.evaluate`, or of `.metrics.evaluate`.

    A function that the package itself exports, as in `from . import evaluate`, has the name of the folder.
    """
    parts = [part for part in dotted.split(".") if part]
    return ".".join(parts[-2:]) if len(parts) > 1 else f"{PurePath(source.path).parent.name}.{dotted.lstrip('.')}"


def own_module(source: SourceFile) -> str:
    """The name by which other files import from this one: its own, or that of the package."""
    path = PurePath(source.path)
    return path.parent.name if path.stem == "__init__" else path.stem


def own_key(source: SourceFile, name: str) -> str:
    """The name under which other files import a function, or a registry, of this file."""
    return f"{own_module(source)}.{name}"


def function_key(source: SourceFile, function: FunctionDefinition) -> str:
    """The name under which other files know a function or a method, or the one around a closure."""
    method = function.method
    return f"{method.owner.name}.{method.name}" if method.owner is not None else own_key(source, method.name)


def package_of(dotted: str) -> str:
    """The outermost package of a dotted name; empty for that of the file itself.

    Example:
        >>> package_of("torch.nn.Linear"), package_of(".random.evaluate")
        ('torch', '')
    """
    return dotted.partition(".")[0]


def class_in(dotted: str) -> str | None:
    """The class of a project that a dotted name stands for, or whose class method it is.

    Example:
        >>> [class_in(name) for name in ("nets.Net", "nets.Net.from_config", "nets.build", "torch.nn.Linear")]
        ['Net', 'Net', None, None]
    """
    if package_of(dotted) in LIBRARIES | TRAINING_LIBRARIES:
        return None
    names = reversed(dotted.split(".")[-2:])
    return next((name for name in names if name[:1].isupper() and not is_table(name)), None)


def is_table(name: str) -> bool:
    """Whether a name is one of a constant that holds classes, and not of a class.

    Example:
        >>> [is_table(name) for name in ("MODELS", "NET_TYPES", "REGISTRY", "MLP", "Models")]
        [True, True, True, False, False]
    """
    return name.isupper() and (name.endswith(("S", "REGISTRY", "FACTORY", "ZOO")) or "_" in name)
