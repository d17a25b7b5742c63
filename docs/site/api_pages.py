"""The pages of the API reference: one for each public module, with every public name."""

from __future__ import annotations

import ast
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
# Public modules, and what a reader finds in each.
MODULES = {
    "dropkit": "what is used most",
    "dropkit.nn": "modules",
    "dropkit.functional": "functions",
    "dropkit.random": "keys",
    "dropkit.mc": "Monte Carlo dropout",
    "dropkit.mc.acquisition": "which inputs to label next",
    "dropkit.mc.conformal": "sets and intervals that cover",
    "dropkit.mc.metrics": "measures of how good an uncertainty is",
    "dropkit.mc.sklearn": "estimators for scikit-learn",
    "dropkit.schedules": "rates that move over training",
    "dropkit.shard": "masks across processes",
    "dropkit.studies": "what studies are made of",
    "dropkit.testing": "dropout in tests",
    "dropkit.callbacks.lightning": "callbacks for Lightning",
    "dropkit.callbacks.transformers": "callbacks for transformers",
}


def pages() -> dict[str, str]:
    """The Markdown of each page, by its path in the documentation."""
    rows = [
        f"| [`{module}`]({module}.md) | {about} | {len(public_names(module))} |" for module, about in MODULES.items()
    ]
    head = ["# API reference", "", "Every public name, with its arguments, types, shapes, errors and an example.", ""]
    index = "\n".join([*head, "| module | what is in it | names |", "|---|---|---|", *rows, ""])
    return {"api/README.md": index, **{f"api/{module}.md": _page(module) for module in MODULES}}


def public_names(module: str) -> dict[str, Path]:
    """The public names of a module and the file that defines each: `__all__`, or what it defines and exports."""
    file = _file(module)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name: (node.module or "", alias)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    names = _all(tree)
    if names is None:
        defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        exported = [name for name, (_, alias) in imported.items() if alias.asname == alias.name]
        names = [name for name in (*defined, *exported) if not name.startswith("_")]
    return {name: _file(imported[name][0], name) if name in imported else file for name in sorted(names)}


def _all(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    return None


def _file(module: str, name: str = "") -> Path:
    """The file of a module, or of its submodule `name` if it has one."""
    folder = SRC / module.replace(".", "/")
    inside = (folder / f"{name}.py", folder / name / "__init__.py") if name else ()
    return next(path for path in (*inside, folder.with_suffix(".py"), folder / "__init__.py") if path.exists())


def _page(module: str) -> str:
    parts = [f"# {module}", f"::: {module}\n    options:\n      members: false\n      show_root_heading: false"]
    for name, file in public_names(module).items():
        path = file.relative_to(SRC.parent)
        if f"{module}.{name}" in MODULES:
            parts.append(f"## {module}.{name}\n\n[A module]({module}.{name}.md): {MODULES[f'{module}.{name}']}.")
        else:
            parts.append(f"::: {module}.{name}\n\nIn [`{path}`](../../{path}).")
    return "\n\n".join(parts) + "\n"
