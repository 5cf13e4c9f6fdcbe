"""What the public modules hold: names, where they are documented, signatures, fields, constants."""

import ast
import functools
import importlib
import inspect
import io
import pkgutil
import re
import tokenize
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import dvae

__all__ = [
    "GROUPS",
    "Field",
    "class_fields",
    "constant",
    "home",
    "is_attribute",
    "members",
    "modules",
    "node_of",
    "public_name",
    "resolver",
    "signature",
    "undocumented",
]

# The subpackages in the order of the site.
GROUPS = (
    "relax",
    "distributions",
    "estimators",
    "rbm",
    "boltzmann",
    "vq",
    "bounds",
    "models",
    "train",
    "data",
    "analysis",
    "trained",
)


class Field(NamedTuple):
    """A field of a class, or a constant."""

    name: str
    type: str
    value: str
    comment: str


@functools.cache
def modules() -> dict[str, ModuleType]:
    """Imports all public modules, by name."""
    names = ["dvae"] + [
        module.name
        for module in pkgutil.walk_packages(dvae.__path__, "dvae.")
        if not any(part.startswith("_") for part in module.name.split("."))
    ]
    return {name: importlib.import_module(name) for name in names}


def public_name(module: str, name: str) -> str:
    """Finds the shortest path that a user imports a name by: `dvae.vq.lookup`."""
    value = getattr(modules()[module], name)
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        prefix = ".".join(parts[:length])
        owner = modules()[prefix]
        if name in owner.__all__ and getattr(owner, name) is value:
            return f"{prefix}.{name}"
    raise ValueError(f"{module}.__all__ has no {name}")


def home(module: str, name: str) -> str:
    """Finds the module on whose page a name stands: the innermost one that declares it."""
    value = getattr(modules()[module], name)
    inner = [
        other
        for other, owner in modules().items()
        if other.startswith(f"{module}.") and name in owner.__all__
        and getattr(owner, name) is value
    ]  # fmt: skip
    return max(inner, key=len, default=module)


@functools.cache
def _targets() -> dict[str, str]:
    """Full names, long and short, to those that are documented; modules among them."""
    targets: dict[str, str] = {}
    for module in modules():
        if is_attribute(module):
            targets[module] = module
    for module, owner in modules().items():
        for name in owner.__all__:
            value = getattr(owner, name)
            if inspect.ismodule(value) or name.startswith("__"):
                continue
            full = targets[f"{module}.{name}"] = public_name(module, name)
            for member in members(value) if inspect.isclass(value) else ():
                targets[f"{full}.{member}"] = f"{full}.{member}"
    return targets


@functools.cache
def _classes() -> dict[str, str]:
    """Names of classes that only one module has, to the full ones."""
    full = {target for target in _targets().values() if target.split(".")[-1][0].isupper()}
    short = [target.split(".")[-1] for target in full]
    return {t.split(".")[-1]: t for t in full if short.count(t.split(".")[-1]) == 1}


def members(value: type) -> dict[str, Any]:
    """Finds the methods and properties that a class defines itself, and that users call."""
    methods = {}
    for name, member in vars(value).items():
        function = getattr(member, "fget", getattr(member, "__func__", member))
        is_public = (not name.startswith("_") or name == "__call__") and name != "setup"
        # A protocol may leave the description of its functions to the modules that have them.
        is_left_out = getattr(value, "_is_protocol", False) and not function.__doc__
        if is_public and not is_left_out and inspect.isfunction(function) and node_of(function):
            methods[name] = function
    return methods


def is_attribute(module: str) -> bool:
    """Says whether the path leads to the module: `dvae.estimators.arms` is a function."""
    value: Any = dvae
    for part in module.split(".")[1:]:
        value = getattr(value, part, None)
    return value is modules()[module]


def resolver(module: str, owner: str = "") -> Callable[[str], str | None]:
    """Returns what resolves names in docstrings of a module, public or private.

    Args:
        module: its full name.
        owner: full name of the class whose members come first.
    """
    parts = module.split(".")
    prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    prefixes = [owner, *prefixes] if owner else prefixes

    def resolve(text: str) -> str | None:
        text = text.removesuffix("()")
        if not re.fullmatch(r"[A-Za-z_][\w.]*", text):
            return None
        candidates = [f"{prefix}.{text}" for prefix in prefixes] + [text]
        known = (_targets()[c] for c in candidates if c in _targets())
        return next(known, _classes().get(text))

    return resolve


@functools.cache
def _parsed(path: str) -> tuple[ast.Module, dict[int, str], dict[int, str]]:
    """Parses a file: its tree, and its comments by line, those behind code and those alone."""
    text = Path(path).read_text(encoding="utf-8")
    behind, alone = {}, {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            kind = alone if not token.line[: token.start[1]].strip() else behind
            kind[token.start[0]] = token.string.lstrip("#: ").rstrip()
    return ast.parse(text), behind, alone


def _file(module: str) -> str:
    path = importlib.import_module(module).__file__
    assert path is not None
    return path


def node_of(value: Any) -> ast.AST | None:
    """Finds the definition of a function or class in the source."""
    value = inspect.unwrap(value)
    try:
        body: list[Any] = _parsed(_file(value.__module__))[0].body
    except (ImportError, AttributeError):
        return None
    node = None
    for part in value.__qualname__.split("."):
        named = (n for n in body if getattr(n, "name", None) == part)
        node = next(named, None)
        if node is None:
            return None
        body = node.body
    return node


def _short(node: ast.AST | None) -> str:
    """Writes an annotation as the source does, without `jax.typing.` and the like."""
    text = ast.unparse(node) if node else ""
    return re.sub(r"\b(jax\.typing|collections\.abc|typing)\.", "", text)


def signature(value: Any) -> tuple[str, str | None] | None:
    """Reads a signature off the source, where types have their short names."""
    node = node_of(value)
    if isinstance(node, ast.ClassDef):
        inits = (n for n in node.body if getattr(n, "name", None) == "__init__")
        init = next(inits, None)
        if init is None:
            fields = [_argument(field) for field in class_fields(value)]
            return f"({', '.join(fields)})", None
        node = init
    if not isinstance(node, ast.FunctionDef):
        return None
    args = node.args
    is_static = any(_short(d) == "staticmethod" for d in node.decorator_list)
    is_method = "." in value.__qualname__ or inspect.isclass(value)
    if is_method and not is_static and args.args:
        args = ast.arguments(**{**vars(args), "args": args.args[1:]})
    return f"({_short(args)})", _short(node.returns) or None


def _argument(field: Field) -> str:
    return f"{field.name}={field.value}" if field.value else field.name


def class_fields(value: type) -> list[Field]:
    """Lists the annotated fields of a class with the comments that say what they are."""
    node = node_of(value)
    if not isinstance(node, ast.ClassDef):
        return []
    parsed = _parsed(_file(value.__module__))
    return [
        _field(child, parsed)
        for child in node.body
        if isinstance(child, ast.AnnAssign) and not ast.unparse(child.target).startswith("_")
    ]


def constant(module: str, name: str) -> Field | None:
    """Finds the assignment of a constant in a module, or in a private one beside it."""
    folder = Path(_file(module)).parent
    for path in [Path(_file(module)), *sorted(folder.glob("*.py"))]:
        parsed = _parsed(str(path))
        for node in parsed[0].body:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            names = [n.id for t in targets if t for n in ast.walk(t) if isinstance(n, ast.Name)]
            if name in names:
                value, field = getattr(modules()[module], name), _field(node, parsed)
                shown = repr(value) if _is_plain(value) else field.value
                return Field(name, field.type, shown, field.comment)
    return None


def _is_plain(value: Any) -> bool:
    """Says whether the value of a constant is worth showing: not that of an alias of types."""
    if isinstance(value, tuple):
        return len(repr(value)) < 300 and all(type(item) in (int, float, str) for item in value)
    return isinstance(value, bool | int | float | str)


def _field(node: Any, parsed: tuple[ast.Module, dict[int, str], dict[int, str]]) -> Field:
    _, behind, alone = parsed
    above, line = [], node.lineno - 1
    while line in alone:
        above.insert(0, alone[line])
        line -= 1
    comment = behind.get(node.end_lineno) or " ".join(above)
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
    value = "..." if node.value is not None and len(ast.unparse(node.value)) > 80 else (
        ast.unparse(node.value) if node.value is not None else ""
    )  # fmt: skip
    return Field(ast.unparse(target), _short(getattr(node, "annotation", None)), value, comment)


def undocumented(value: Any) -> bool:
    """Says whether the docstring is missing, or made up by `NamedTuple` or `dataclass`."""
    doc = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return not doc or doc.startswith(f"{value.__name__}(")
