"""The public interface as lines of text: every name, its parameters, their defaults.

``python tests/public.py`` writes them to ``tests/public.txt``, which
``tests/test_api.py`` holds against the code, so that a deliberate change of the
interface is a diff of that file.
"""

import ast
import dataclasses
import functools
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin

import fairjax

SNAPSHOT = Path(__file__).with_name("public.txt")
MODULES = [fairjax] + [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(fairjax.__path__, "fairjax.")
    if not any(part.startswith("_") for part in found.name.split("."))
]


def is_ours(value) -> bool:
    return (getattr(value, "__module__", None) or "").startswith(fairjax.__name__)


def names(module) -> list[str]:
    """What the module exports; without ``__all__``, what it defines in public."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    assigned = _assigned(module)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (
            (getattr(value, "__module__", None) == module.__name__ and callable(value))
            # Values carry no module: constants and choices count where they are made.
            or (name in assigned and _is_constant(name, value))
        )
    )


def _is_constant(name: str, value) -> bool:
    return get_origin(value) is Literal or (
        name.isupper() and not isinstance(value, TypeVar)
    )


def _assigned(module) -> set[str]:
    """Names that the module itself assigns, and does not import."""
    found = set()
    for statement in ast.parse(inspect.getsource(module)).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = getattr(statement, "targets", None) or [statement.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def _value(value) -> str:
    """A value as it is typed; functions by their name, large objects by their keys."""
    if get_origin(value) is not None:
        return repr(value).replace("typing.", "")
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    if isinstance(value, Mapping) and not all(map(_is_plain, value.values())):
        return f"{type(value).__name__} of {', '.join(map(repr, value))}"
    return repr(value.tolist() if hasattr(value, "tolist") else value)


def _is_plain(value) -> bool:
    """Whether a value is of built-in types, so that it is shown as a whole."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, str | int | float | None)


def _default(value, parameter: inspect.Parameter) -> str:
    """The default of a function's or class's parameter."""
    if getattr(parameter.default, "__name__", "") == "<lambda>":
        return ast.unparse(_typed(value)[parameter.name])
    if repr(parameter.default) == "<factory>":
        (made,) = (f for f in dataclasses.fields(value) if f.name == parameter.name)
        return _value(made.default_factory())
    return _value(parameter.default)


def _typed(value) -> dict[str, ast.expr]:
    """Parameter -> its default in the source."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(value)))
    of = ast.parse(source).body[0].args
    positional = [*of.posonlyargs, *of.args]
    last = positional[len(positional) - len(of.defaults) :]
    pairs = zip([*last, *of.kwonlyargs], [*of.defaults, *of.kw_defaults], strict=True)
    return {argument.arg: default for argument, default in pairs if default}


def _parameters(value) -> list[inspect.Parameter]:
    """Without what a class inherits from other libraries, which may change it."""
    if inspect.isclass(value):
        found = value.__init__ if "__init__" in vars(value) else value
        if not is_ours(found):
            return []
        signature = inspect.signature(found)
        inherited = {
            name
            for base in value.__mro__
            if not is_ours(base)
            for name in inspect.get_annotations(base)
        } | {"self"}
        return [p for n, p in signature.parameters.items() if n not in inherited]
    return list(inspect.signature(value).parameters.values())


def signature(value) -> str:
    """Parameters in order with their kinds and defaults, without annotations."""
    plain = [p.replace(annotation=p.empty) for p in _parameters(value)]
    parts = [
        str(p.replace(default=p.empty))
        + ("" if p.default is p.empty else f"={_default(value, p)}")
        for p in plain
    ]
    kinds = [p.kind for p in plain]
    positional = kinds.count(inspect.Parameter.POSITIONAL_ONLY)
    keyword = inspect.Parameter.KEYWORD_ONLY
    if keyword in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parts.insert(kinds.index(keyword), "*")
    if positional:
        parts.insert(positional, "/")
    return f"({', '.join(parts)})"


def _members(kind: type, path: str) -> Iterator[str]:
    """Public methods and properties that the class itself defines."""
    for name, value in sorted(vars(kind).items()):
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, property | functools.cached_property):
            yield f"{path}.{name}"
        elif inspect.isfunction(value):
            yield f"{path}.{name}{signature(value)}"


def _entry(path: str, value) -> list[str]:
    if inspect.isclass(value):
        if issubclass(value, BaseException):
            return [f"{path} (exception)"]
        return [path + signature(value), *_members(value, path)]
    if callable(value) and (inspect.isroutine(value) or is_ours(value)):
        return [path + signature(value)]
    return [f"{path} = {_value(value)}"]


def lines() -> list[str]:
    """One line a name: its signature at the shortest path, elsewhere what it equals."""
    found: dict[Any, str] = {}
    lines = []
    for module in sorted(MODULES, key=lambda m: (m.__name__.count("."), m.__name__)):
        for name in names(module):
            path, value = f"{module.__name__}.{name}", getattr(module, name)
            # By name, because a collector of doctests may import a module twice.
            key = id(value)
            # Equal numbers and strings of two modules may be one object by chance.
            if isinstance(value, str | int | float):
                key = path
            if is_ours(value) and hasattr(value, "__qualname__"):
                key = (value.__module__, value.__qualname__)
            if inspect.ismodule(value):
                lines.append(f"{path} (module)")
            elif key in found:
                lines.append(f"{path} = {found[key]}")
            else:
                found[key] = path
                lines += _entry(path, value)
    return lines


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(lines()) + "\n", encoding="utf-8")
