"""Writes a page for each public module before Sphinx reads, and converts docstrings for autodoc."""

import inspect
from pathlib import Path
from typing import Any

import docstrings
import sources
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

_HEAD = "```````{eval-rst}"
_TAIL = "```````"


def _first_sentence(text: str) -> str:
    """Returns the first line of a docstring, which ruff keeps to one sentence."""
    return text.strip().split("\n")[0]


def _rst(*lines: str) -> list[str]:
    return [_HEAD, *lines, _TAIL, ""]


def _members(full: str, value: type) -> list[str]:
    """Names the members of a class, all of which must be documented."""
    members = sources.members(value)
    for name, function in members.items():
        if not function.__doc__:
            raise ExtensionError(f"{full}.{name}: no docstring")
    return list(members)


def _constant(module: str, name: str, full: str) -> list[str]:
    field = sources.constant(module, name)
    if field is None:
        raise ExtensionError(f"{module}.{name} is neither a function, a class nor a constant")
    value = [f"   :value: {field.value}"] if field.value else []
    comment = docstrings.inline(field.comment, sources.resolver(module))
    owner, _, short = full.rpartition(".")
    head = [f".. py:data:: {short}", f"   :module: {owner}"]
    return [*head, *value, "", f"   {comment}", ""]


def _entry(module: str, name: str) -> list[str]:
    """Writes the directive of one name."""
    full, value = sources.public_name(module, name), getattr(sources.modules()[module], name)
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return _constant(module, name, full)
    if sources.undocumented(value):
        raise ExtensionError(f"{full}: no docstring")
    if inspect.isfunction(value):
        return [f".. autofunction:: {full}", ""]
    kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
    members = _members(full, value)
    options = [f"   :members: {', '.join(members)}"] if members else []
    if "__call__" in members:
        options.append("   :special-members: __call__")
    return [f".. {kind}:: {full}", *options, ""]


def _summary(module: str, name: str) -> str:
    value = getattr(sources.modules()[module], name)
    if inspect.isfunction(value) or inspect.isclass(value) or inspect.ismodule(value):
        return _first_sentence(value.__doc__ or "")
    field = sources.constant(sources.home(module, name), name)
    return field.comment if field else ""


def _names(module: str) -> tuple[list[str], list[str]]:
    """Splits `__all__` into what this page documents and what a submodule's page does."""
    owner, own, others = sources.modules()[module], [], []
    for name in owner.__all__:
        if inspect.ismodule(getattr(owner, name)) or name.startswith("__"):
            continue
        (own if sources.home(module, name) == module else others).append(name)
    return own, others


def _equations(module: str, folder: Path) -> list[str]:
    """Reads the formulas of a module, whose names in backticks become links."""
    path = folder / f"{module.removeprefix('dvae.')}.md"
    if not path.exists():
        return []
    resolve, parts = sources.resolver(module), path.read_text(encoding="utf-8").split("`")
    for number in range(1, len(parts), 2):
        target = resolve(parts[number])
        link = f"{{py:obj}}`{parts[number]} <{target}>`" if target else f"`{parts[number]}`"
        parts[number] = link
    return ["".join(parts), ""]


def _table(module: str, names: list[str]) -> list[str]:
    rows = [".. list-table::", "   :widths: auto", ""]
    for name in names:
        full = sources.public_name(module, name)
        text = docstrings.inline(_summary(module, name), sources.resolver(module))
        rows += [f"   * - :py:obj:`{name} <{full}>`", f"     - {text}"]
    return rows


def _children(module: str) -> list[str]:
    depth = module.count(".") + 1
    return [m for m in sources.modules() if m.startswith(f"{module}.") and m.count(".") == depth]


def page(module: str, equations: Path) -> str:
    """Writes the page of one module, in MyST."""
    owner = sources.modules()[module]
    resolve = sources.resolver(module)
    first, _, rest = inspect.cleandoc(owner.__doc__ or "").partition("\n\n")
    if not first:
        raise ExtensionError(f"{module}: no docstring")
    is_reachable = sources.is_attribute(module)
    head = [f".. py:module:: {module}", ""] if is_reachable else []
    lines = [f"# {module}", ""]
    lines += _rst(*head, *docstrings.to_rst(first.split("\n"), resolve))
    lines += _equations(module, equations)
    if rest:
        lines += _rst(*docstrings.to_rst(rest.split("\n"), resolve))
    own, others = _names(module)
    children = _children(module) if module != "dvae" else []
    if children:
        lines += ["## Modules", ""]
        lines += [*_rst(*_module_table(children)), "```{toctree}", ":hidden:", ""]
        lines += [*(f"{m.split('.')[-1]} <{m}>" for m in children), "```", ""]
    if others:
        lines += ["## Names of the package", ""]
        lines += _rst(*_table(module, others))
    if own:
        lines += ["## Reference", ""]
        lines += _rst(*(line for name in own for line in _entry(module, name)))
    return "\n".join(lines)


def _module_table(names: list[str]) -> list[str]:
    rows = [".. list-table::", "   :widths: auto", ""]
    for name in names:
        summary = _first_sentence(sources.modules()[name].__doc__ or "")
        text = docstrings.inline(summary, sources.resolver(name))
        rows += [f"   * - :doc:`{name.split('.')[-1]} </api/generated/{name}>`", f"     - {text}"]
    return rows


def write_pages(app: Sphinx) -> None:
    """Writes all pages; those that did not change keep their time, so that Sphinx skips them."""
    root = Path(app.srcdir) / "api"
    folder = root / "generated"
    folder.mkdir(exist_ok=True)
    packages = [f"dvae.{name}" for name in sources.GROUPS]
    packages = [name for name in packages if name in sources.modules()]
    grouped = [*_rst(*_module_table(packages)), "```{toctree}", ":hidden:", ""]
    own, others = _names("dvae")
    top = ["dvae"] if own or others else []
    grouped += [*(f"generated/{name}" for name in [*top, *packages]), "```"]
    wanted = {"groups.md": "\n".join(grouped)}
    for module in sources.modules():
        if module == "dvae" and not top:
            continue
        if module != "dvae" and module.split(".")[1] not in sources.GROUPS:
            raise ExtensionError(f"{module} is in no group of docs/_ext/sources.py")
        wanted[f"{module}.md"] = page(module, root / "equations")
    for path in folder.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def convert(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Converts one docstring in place, with the fields of a class behind it."""
    function = getattr(value, "fget", value)
    owner = name if what == "class" else name.rpartition(".")[0]
    resolve = sources.resolver(getattr(function, "__module__", None) or "dvae", owner)
    converted = docstrings.to_rst(list(lines), resolve)
    if what == "class":
        for field in sources.class_fields(value):
            converted.append(f":ivar {field.name}: {docstrings.inline(field.comment, resolve)}")
            converted.append(f":vartype {field.name}: {field.type}")
        converted.append("")
    lines[:] = converted


def show_signature(
    app: Sphinx, what: str, name: str, value: Any, options: Any, args: str, returns: str
) -> tuple[str, str | None] | None:
    """Replaces the signature by that of the source."""
    return sources.signature(value) if what in ("class", "function", "method") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the hooks."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", convert, priority=400)  # before Napoleon
    app.connect("autodoc-process-signature", show_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
