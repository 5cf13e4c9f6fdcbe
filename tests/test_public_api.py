"""Public names: declared in `__all__`, documented, and what `help()` and editors show."""

import ast
import importlib
import inspect
import pkgutil
import pydoc
import types
import typing

import pytest

import dvae
from dvae import relax

MODULES = ["dvae"] + [
    module.name
    for module in pkgutil.walk_packages(dvae.__path__, "dvae.")
    if not any(part.startswith("_") for part in module.name.split("."))
]


def defined(module: types.ModuleType) -> set[str]:
    """Public-looking names of the functions, classes and constants that a module defines."""
    names = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")} - {"PyTree"}  # `Any` to readers


def is_home(module: types.ModuleType, origin: str) -> bool:
    """Whether the module may show what another one defines: a package, or a private sibling's."""
    package, _, last = origin.rpartition(".")
    if hasattr(module, "__path__"):
        return f"{origin}.".startswith(f"{module.__name__}.")
    private = last.startswith("_") and package == module.__name__.rpartition(".")[0]
    return origin == module.__name__ or private


def is_constant(value: object) -> bool:
    """Whether it is a number, text, a table, or the alias of a type."""
    is_alias = typing.get_origin(value) is not None or value is typing.Any
    return is_alias or isinstance(value, bool | int | float | str | tuple | dict)


def undocumented(value: type | types.FunctionType) -> bool:
    """Whether the docstring is missing, or made up by `NamedTuple` or `dataclass`."""
    doc = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return not doc or doc.startswith(f"{value.__name__}(")


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_declared_and_documented(name) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert len(set(module.__all__)) == len(module.__all__)
    assert defined(module) <= set(module.__all__), "public-looking, and not in __all__"
    for key in module.__all__:
        value = getattr(module, key)
        if inspect.ismodule(value):
            assert value.__name__ == f"{name}.{key}"
        elif is_constant(value):
            shown = key.isupper() or key in defined(module) or hasattr(module, "__path__")
            assert shown or key == "__version__"
        else:
            assert inspect.isfunction(value) or inspect.isclass(value), f"{key} is {value}"
            assert value.__name__ == key
            assert is_home(module, value.__module__), key
            assert not undocumented(value), key


@pytest.mark.parametrize("name", MODULES)
def test_help_shows_the_signatures(name) -> None:
    """Real ones: no wrapper's `*args, **kwargs`, no method's `self`, every parameter typed."""
    module = importlib.import_module(name)
    text = pydoc.render_doc(module, renderer=pydoc.plaintext)
    for key in module.__all__:
        value = getattr(module, key)
        if not inspect.isfunction(value):
            continue
        code = inspect.unwrap(value).__code__  # `functools.wraps` shows the signature inside
        count = code.co_argcount + code.co_kwonlyargcount
        signature = inspect.signature(value)
        parameters = signature.parameters.values()
        positional = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        assert [p.name for p in positional] == list(code.co_varnames[:count])
        assert all(p.annotation is not p.empty for p in parameters), key
        assert signature.return_annotation is not signature.empty, key
        assert f"{key}(" in text
        assert value.__doc__.splitlines()[0] in text


@pytest.mark.parametrize("name", relax.SMOOTHINGS)
def test_smoothings_are_functions_of_their_modules(name) -> None:
    """Those of the protocol, with its parameters; `uniform_exp` has one more."""
    module = relax.SMOOTHINGS[name]
    protocol = {k: v for k, v in vars(relax.Smoothing).items() if inspect.isfunction(v)}
    interface = {key: protocol[key] for key in protocol if not key.startswith("_")}
    if name == "spike_exp":
        interface = {key: interface[key] for key in ("cdf", "icdf", "sample")}
    assert set(module.__all__) == set(interface)
    for key, method in interface.items():
        own = list(inspect.signature(getattr(module, key)).parameters)
        extra = ["eps"] if name == "uniform_exp" else []
        assert own == [*list(inspect.signature(method).parameters)[1:], *extra]
        doc = getattr(module, key).__doc__
        for section in ("Args:", "Returns:", "Raises:", "dtype"):
            assert section in doc, f"{key} says nothing of {section}"
