"""Who may read an attribute of a class, as far as its own file tells: methods, heirs, holders, names made at run time.

A word in a comment counts as a reader: whoever wrote `# x = self.dropout(x)` knows that the layer is not applied.
"""

from __future__ import annotations

import ast
import re

from dropkit.catalog import MODULE_BASES
from dropkit.facts.definitions import Class
from dropkit.facts.expressions import self_attribute
from dropkit.facts.module import Module

# Holders of settings: what is read of them is no layer of anyone's.
_SETTINGS = re.compile(r"conf|cfg|arg|opt|param|(^|_)hps?(_|$)|setting|kw|spec|prune|flags", re.IGNORECASE)
# Bases that read no attribute by a name of the class's own.
_PLAIN = frozenset({"object", "ABC", "Generic", "Protocol", "PushToHubMixin", "GenerationMixin", "ModuleUtilsMixin"})
# Bases whose forward runs every child in order.
_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")
# Calls that take `self` and read no layer of it.
_HARMLESS = frozenset(
    {"super", "isinstance", "issubclass", "hasattr", "setattr", "getattr", "delattr", "type", "id", "__init__", "print"}
)
_ADMITS = re.compile(
    r"unused|not[ _]used|never[ _]used|un-?necessary|no[ _]effect|not[ _]needed|todo|fixme|deprecat|legacy|compat"
    r"|ignored|placeholder|dummy|reserved|state.?dict|checkpoint|pre-?trained|not[ _]applied|for[ _]subclass",
    re.IGNORECASE,
)


def family(owner: Class) -> list[Class]:
    """The class, its heirs in this file, and whatever these inherit from."""
    found: dict[Class, None] = {}
    for one in (owner, *owner.heirs):
        found.update(dict.fromkeys(one.lineage))
    return list(found)


def may_be_read(owner: Class, attribute: str) -> bool:
    """Whether anyone in this file may read `attribute` of an `owner`."""
    relatives = family(owner)
    return (
        any(attribute in one.reads for one in relatives)
        or any(_reaches(owner, relatives, node) for node in owner.module.attributes.get(attribute, []))
        or any(_reads_any(one) for one in relatives)
        or _named_at_run_time(owner.module, relatives, attribute)
        or any(_spoken_of(one, attribute) for one in relatives)
    )


def is_plain(owner: Class) -> bool:
    """Whether it inherits, in the end, from nothing but torch's Module and bases known to be as bare."""
    for one in owner.lineage:
        for base, name in zip(one.node.bases, one.bases, strict=True):
            if owner.module.local_class(base) is not None:
                continue
            node = base.value if isinstance(base, ast.Subscript) else base
            last = (name or getattr(node, "attr", None) or getattr(node, "id", "")).rsplit(".", 1)[-1]
            if last not in MODULE_BASES and last not in _PLAIN:
                return False
    return True


def is_container(owner: Class) -> bool:
    """Whether its children run, or are handed out, without being named."""
    return any(root.rsplit(".", 1)[-1].endswith(_CONTAINERS) for root in owner.roots)


def is_abstract(owner: Class) -> bool:
    """Whether it is made to be inherited from: no forward, or one that only complains."""
    forward = owner.method("forward")
    if forward is None or isinstance(forward.node, ast.Lambda):
        return True
    for one in owner.lineage:
        for method in one.methods.values():
            decorators = method.node.decorator_list if not isinstance(method.node, ast.Lambda) else []
            if any("abstract" in ast.unparse(decorator) for decorator in decorators):
                return True
    return is_empty(forward.node.body)


def is_empty(body: list[ast.stmt]) -> bool:
    """Whether a body does nothing but explain itself, pass, call super().__init__() or raise."""
    return all(
        isinstance(statement, (ast.Pass, ast.Raise))
        or (
            isinstance(statement, ast.Expr)
            and (isinstance(statement.value, ast.Constant) or _initialises(statement.value))
        )
        for statement in body
    )


def leans_on_base(owner: Class) -> bool:
    """Whether its forward, or another method, hands the work to a base of another file."""
    return any(
        isinstance(parent := owner.module.parent(call), ast.Attribute)
        and parent.attr not in ("__init__", "train", "eval")
        for call in owner.module.calls.get("super", [])
        if owner.module.owner(call) is owner
    )


def admitted(module: Module, node: ast.AST) -> bool:
    """Whether a comment beside `node`, or on the line above, says that it does nothing or why it is kept."""
    first, last = module.text.span(node).line, module.text.span(node).end_line
    for number in range(max(1, first - 1), last + 1):
        text = module.text.line(number)
        code, mark, comment = text.partition("#")
        if mark and (number >= first or not code.strip()) and _ADMITS.search(comment):
            return True
    return False


def source(owner: Class) -> str:
    """The text of a class."""
    return owner.module.text.of(owner.node)


def _initialises(expression: ast.expr) -> bool:
    return isinstance(expression, ast.Call) and getattr(expression.func, "attr", None) == "__init__"


def _reaches(owner: Class, relatives: list[Class], node: ast.Attribute) -> bool:
    """Whether a use of an attribute of this name, not through `self` in the class, may be one of `owner`'s."""
    module = owner.module
    if isinstance(node.ctx, ast.Del):
        return True
    if isinstance(node.ctx, ast.Store):
        return False
    if self_attribute(node) is not None:
        # In a method of another class it is that class's own; in a function it is anyone's.
        return module.owner(node) is None
    if module.dotted(node) is not None:
        return False
    holder = node.value
    last = holder.attr if isinstance(holder, ast.Attribute) else holder.id if isinstance(holder, ast.Name) else ""
    if _SETTINGS.search(last):
        return False
    made = _classes(module, holder)
    return not made or any(one.name in made for one in relatives)


def _classes(module: Module, holder: ast.expr) -> set[str]:
    """Simple names of the classes that `holder` is made from; empty where one of them is not known."""
    attribute, owner = self_attribute(holder), module.owner(holder)
    values = [holder]
    if attribute is not None and owner is not None:
        values = owner.values(attribute)
    elif isinstance(holder, ast.Name):
        values = [module.value(holder)]
    names = {(module.called(value) or "").rsplit(".", 1)[-1] if isinstance(value, ast.Call) else "" for value in values}
    return set() if any(not name[:1].isupper() for name in names) else names


def _reads_any(owner: Class) -> bool:
    """Whether it walks over its children, or lets another do so, without naming them."""
    if any(name in owner.own_calls for name in ("children", "named_children", "__getattr__")):
        return True
    if any(name in owner.reads for name in ("_modules", "__dict__", "__getattribute__")):
        return True
    if any(_in_forward(owner, call) for name in ("modules", "named_modules") for call in owner.own_calls.get(name, [])):
        return True
    return any(_hands_itself_over(owner, call) for calls in owner.module.calls.values() for call in calls)


def _in_forward(owner: Class, call: ast.Call) -> bool:
    function = owner.module.function(call)
    return function is not None and "forward" in function.method.name


def _hands_itself_over(owner: Class, call: ast.Call) -> bool:
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    if (
        not any(isinstance(one, ast.Name) and one.id == "self" for one in given)
        or owner.module.owner(call) is not owner
    ):
        return False
    last = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if last == "getattr" and len(call.args) > 1:
        return not isinstance(call.args[1], ast.Constant)
    return last not in _HARMLESS


def _named_at_run_time(module: Module, relatives: list[Class], attribute: str) -> bool:
    """Whether a string in the class, or a getattr anywhere, is or may become the name."""
    # Not config["dropout"], kwargs.get("dropout", 0), getattr(config, "dropout").
    text = re.compile(rf"(?<!\[)(?<!get\()(?<!pop\()(?<!self, )(?<!, )(?:'{attribute}'|\"{attribute}\")")
    if any(text.search(source(one)) for one in relatives):
        return True
    for call in module.calls.get("getattr", []):
        if len(call.args) > 1 and _may_make(call.args[1], attribute):
            holder = ast.unparse(call.args[0])
            if not _SETTINGS.search(holder.rsplit(".", 1)[-1]):
                return True
    return False


def _may_make(expression: ast.expr, attribute: str) -> bool:
    """Whether the first constant part of a string that is put together begins the name."""
    for node in ast.walk(expression):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            start = re.split(r"[{%]", node.value, maxsplit=1)[0]
            whole = isinstance(expression, ast.Constant)
            return attribute == node.value if whole else bool(start) and attribute.startswith(start)
    return False


def _spoken_of(owner: Class, attribute: str) -> bool:
    """Whether a comment or string in the class uses the attribute, which its code does not."""
    used = rf"\bself\s*\.\s*{attribute}\b(?!\s*(?::|=[^=]))|#[^\n]*\b{attribute}\s*\("
    return re.search(used, source(owner)) is not None
