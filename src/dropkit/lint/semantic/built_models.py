"""Find the calls that built a model, and whether what they build behaves differently in training and evaluation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from dropkit.catalog import MODE_DEPENDENT, TRANSFORMERS
from dropkit.lint.semantic.attribute_usage import mode_dependent_modules
from dropkit.lint.semantic.callees import called_function, local_function, method_key
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.expressions import argument, last_name, last_part, literal, self_attribute
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.module_names import LIBRARIES, class_in, is_table, module_key, own_key, package_of
from dropkit.lint.semantic.moved_layers import MOVES
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.syntax_tree import cached_per_file

# Methods that return the model itself, and functions that return their first argument, or a wrapper of it.
_SAME_MODEL = MOVES - {"eval"}
_WRAPPERS = ("DataParallel", "DistributedDataParallel", "DDP", "FSDP", "compile", "prepare", "setup", "prepare_model")
_WITH_MODES = pattern(r"^torchvision\.models\.(?!vit)([a-z]+\.)?[a-z]|^timm\.create_model$")
# Functions that make what a configuration names.
_CONFIGURED = ("instantiate", "instantiate_from_config", "init_instance_by_config", "get_obj_from_str")
# Models of these come in evaluation mode.
_EVAL_FIRST = "from_pretrained"
_FARTHEST = 6


@cached_per_file
def built(source: SourceFile, model: ast.expr | None, depth: int = 0) -> list[ast.Call]:
    """The calls that built `model`, through names, parameters, `.to(device)` and wrappers; empty if unknown."""
    if model is None or depth > _FARTHEST:
        return []
    if isinstance(model, ast.Call):
        return _built_by_call(source, model, depth)
    if isinstance(model, ast.Attribute) and model.attr == "module":
        return built(source, model.value, depth + 1)  # What DataParallel wraps.
    values = _values(source, model)
    each = [built(source, value, depth + 1) for value in values] if len(values) <= MOST else []
    calls = dict.fromkeys(call for inner in each for call in inner)
    return list(calls) if all(each) and len(calls) <= MOST else []


def _built_by_call(source: SourceFile, call: ast.Call, depth: int) -> list[ast.Call]:
    last = source.last_name(call)
    if isinstance(call.func, ast.Attribute) and last in _SAME_MODEL and source.called(call) is None:
        return built(source, call.func.value, depth + 1)
    if last in _WRAPPERS:
        return built(source, call.args[0], depth + 1) if call.args else []
    if last in _CONFIGURED:
        return []
    is_own = self_attribute(call.func) is not None
    factory = called_function(source, call) if is_own else local_function(source, call.func)
    if factory is None:
        return [call]
    each = [built(source, value, depth + 1) for value in factory.returns]
    return list(dict.fromkeys(made for inner in each for made in inner)) if each and all(each) else []


def made_by(source: SourceFile, factory: FunctionDefinition) -> list[ast.Call]:
    """The calls that built what a function returns, as far as they are known."""
    values: list[ast.expr | None] = []
    for value in factory.returns[:MOST]:
        values += _values(source, value) if isinstance(value, ast.Name) else [value]
    known = (value for value in values[:MOST] if isinstance(value, ast.Call))
    return list(dict.fromkeys(call for value in known for call in built(source, value)))


def _values(source: SourceFile, model: ast.expr) -> list[ast.expr | None]:
    """What a name, a parameter or `self.attribute` is set to, as far as this file knows; None for what is unknown."""
    attribute, owner = self_attribute(model), source.owner(model)
    if attribute is not None and owner is not None:
        assigned = [value for value in owner.values(attribute) if literal(value) is not None]
        return [None] if len(assigned) > MOST else [each for each in assigned if not _is_made_of(source, each, model)]
    bindings = source.bindings(model) if isinstance(model, ast.Name) else []
    values: list[ast.expr | None] = [None] if len(bindings) > MOST else []
    for binding in bindings[:MOST]:
        if isinstance(binding.statement, ast.arg):
            values += _given(source, binding.statement)
        elif not _is_made_of(source, binding.value, model):
            values.append(None if binding.derived else binding.value)
    return values


def _is_made_of(source: SourceFile, value: ast.expr | None, model: ast.expr) -> bool:
    """Whether `value` is made of the model itself, as in `model = model.to(device)`."""
    if isinstance(model, ast.Name) and value is not None:
        return any(isinstance(node, ast.Name) and node.id == model.id for node in ast.walk(value))
    name = re.escape(source.text.of(model))
    return value is not None and re.search(rf"(?<![\w.]){name}\b", source.text.of(value)) is not None


@cached_per_file
def _given(source: SourceFile, parameter: ast.arg) -> list[ast.expr | None]:
    """The arguments that calls in this file pass for a parameter."""
    function = source.by_node.get(source.parent(source.parent(parameter)))
    if not isinstance(function, FunctionDefinition):
        return [None]
    called, is_method = function.name, function.owner is not None
    index = function.parameters.index(parameter) - is_method
    if index < 0:
        return [None]
    if function.owner is not None and called == "__init__":
        called, is_method = function.owner.name, False
    calls = [
        call
        for call in source.calls.get(called, [])
        if isinstance(call.func, ast.Attribute) == is_method and source.function(call) is not function
    ]
    return [argument(call, index, parameter.arg) for call in calls] or [None]


@cached_per_file
def trained_models(source: SourceFile) -> set[ast.Call]:
    """The calls that built models whose parameters are asked for; empty if one of these models is unknown."""
    models = [call.func.value for call in source.calls.get("parameters", []) if isinstance(call.func, ast.Attribute)]
    each = [built(source, model) for model in models]
    return {call for calls in each for call in calls} if all(each) else set()


def mode_facts(source: SourceFile, calls: Iterable[ast.Call]) -> tuple[str, ...] | None:
    """The facts of other files that make all models of these calls depend on the mode; None if one does not."""
    facts: dict[str, None] = {}
    for call in calls:
        fact = _mode_fact(source, call)
        if fact is None:
            return None
        facts.update(dict.fromkeys(fact))
    return tuple(facts)


def is_built_in_eval(source: SourceFile, calls: Iterable[ast.Call]) -> bool:
    """Whether a model comes in evaluation mode, as those of transformers do."""
    return any(source.last_name(call) == _EVAL_FIRST for call in calls)


def maker_facts(source: SourceFile, calls: Iterable[ast.Call]) -> list[str]:
    """The facts which say that functions of other files that built a model set it to evaluation mode."""
    known = [name for call in calls if (name := source.called(call)) is not None]
    return [
        f"switches:{module_key(source, name)}"
        for name in known
        if package_of(name) not in LIBRARIES and not last_part(name)[:1].isupper()
    ]


@cached_per_file
def _mode_fact(source: SourceFile, call: ast.Call) -> tuple[str, ...] | None:
    """Empty if the model that `call` makes has dropout or batch normalisation; else the fact that says so, or None."""
    name = source.called(call) or ""
    local = source.local_class(call.func)
    if local is not None:
        return _class_fact(source, local)
    if name == "torch.nn.Sequential":
        layers = [node for node in ast.walk(call) if isinstance(node, ast.Call)]
        local_layers = (source.local_class(layer.func) for layer in layers)
        has_mode = any(source.called(layer) in MODE_DEPENDENT | TRANSFORMERS for layer in layers)
        return () if has_mode or any(cls in mode_dependent_modules(source) for cls in local_layers) else None
    if _WITH_MODES.match(name) is not None or source.last_name(call) == _EVAL_FIRST:
        return ()
    is_other = name.startswith(("torch.", "numpy.", "sklearn."))
    if (table := _own_table(source, call.func)) is not None:
        facts = [fact for value in table.values if (fact := fact_of_reference(source, value)) is not None]
        return min(facts, key=len, default=None)
    key = None if is_other else method_key(source, call) or _key_of(source, call.func)
    return (f"has-mode:{key}",) if key is not None else None


def _key_of(source: SourceFile, callee: ast.expr, depth: int = 0) -> str | None:
    """The name under which the project knows what makes a model: a class, a function, a registry, a package."""
    known = source.dotted(callee)
    if known is not None:
        return _key_of_name(source, known)
    match callee:
        case ast.Name() if (value := source.value(callee)) is not None and depth < _FARTHEST:
            return _key_of(source, value, depth + 1)
        case ast.Subscript(value=ast.Attribute(attr="__dict__", value=package)):
            return _key_of_package(source, package)
        case ast.Call(func=ast.Name(id="getattr"), args=[package, *_]):
            return _key_of_package(source, package)
        case ast.Subscript(value=registry) | ast.Call(func=ast.Attribute(attr="get", value=registry)):
            name = source.dotted(registry)
            if name is not None:
                return module_key(source, name)
            is_own = isinstance(registry, ast.Name) and registry.id in source.names
            return own_key(source, last_name(registry)) if is_own else None
        case ast.Attribute(attr=name, value=ast.Name()):
            return class_in(name)  # Of a module that is imported by its name in a string.
        case ast.Name(id=name) if source.stars and not source.bindings(callee):
            return class_in(name)
        case _:
            return None


def _own_table(source: SourceFile, callee: ast.expr) -> ast.Dict | None:
    """The dictionary of a function from which a model's class is taken."""
    match callee:
        case ast.Name() if (value := source.value(callee)) is not None:
            return _own_table(source, value) if isinstance(value, ast.Subscript) else None
        case ast.Subscript(value=table) | ast.Call(func=ast.Attribute(attr="get", value=table)):
            value = source.substitute(table)
            is_local = isinstance(table, ast.Dict) or (isinstance(table, ast.Name) and table.id not in source.names)
            return value if is_local and isinstance(value, ast.Dict) else None
        case _:
            return None


def _key_of_name(source: SourceFile, known: str) -> str | None:
    """The key of a class, of the class of a class method, of a registry that builds, or of a function."""
    if package_of(known) in LIBRARIES:
        return None
    name, head = class_in(known), last_part(known.rpartition(".")[0])
    return name or (f"{head}.*" if is_table(head) else module_key(source, known))


def _key_of_package(source: SourceFile, package: ast.expr) -> str | None:
    known = source.dotted(package)
    if known is None:
        return _key_of_import(source.substitute(package))
    return f"{last_part(known)}.*" if package_of(known) not in LIBRARIES else None


def _key_of_import(value: ast.expr) -> str | None:
    """The package that `importlib.import_module` is given, as far as it is written."""
    if not isinstance(value, ast.Call) or last_name(value) not in ("import_module", "__import__") or not value.args:
        return None
    texts = (node.value for node in ast.walk(value.args[0]) if isinstance(node, ast.Constant))
    parts = [part for part in str(next(texts, "")).split(".") if part.isidentifier()]
    return f"{parts[-1]}.*" if parts else None


def fact_of_reference(source: SourceFile, reference: ast.expr) -> tuple[str, ...] | None:
    """As of `mode_facts`: of what a class or function makes that is named, as in a registry, and not called."""
    if isinstance(reference, ast.Call):
        return mode_facts(source, [reference])
    local, function = source.local_class(reference), local_function(source, reference)
    if local is not None:
        return _class_fact(source, local)
    key = own_key(source, function.name) if function is not None else _key_of(source, reference)
    return (f"has-mode:{key}",) if key is not None else None


def _class_fact(source: SourceFile, cls: ClassDefinition) -> tuple[str, ...] | None:
    if cls in mode_dependent_modules(source):
        return ()
    return (f"has-mode:{cls.name}",) if layer_facts(source, cls) else None


@cached_per_file
def layer_facts(source: SourceFile, cls: ClassDefinition) -> list[tuple[str, ...]]:
    """The facts of other files any of which makes a Module of this file depend on the mode: those of its layers."""
    if not cls.is_module or len(cls.mro) > MOST:
        return []
    values = [write.value for each in cls.mro for writes in each.writes.values() for write in writes]
    made = [value for value in values if isinstance(value, ast.Call) and source.local_class(value.func) is not cls]
    facts = [_mode_fact(source, call) for call in made[:MOST] if source.called(call) is not None]
    return list(dict.fromkeys(fact for fact in facts if fact is not None))
