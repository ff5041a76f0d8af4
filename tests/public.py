"""The public interface as lines of text: every name, its parameters, their defaults.

``python tests/public.py`` writes them to ``tests/public.txt``, which
``tests/test_api.py`` holds against the code, so that a deliberate change of the
interface is a diff of that file.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and _is_defined(value, module)
    )


def _is_defined(value, module) -> bool:
    if inspect.ismodule(value):
        return False
    # Constants of built-in types carry no module; they count where their name shouts.
    own = getattr(value, "__module__", None)
    return own == module.__name__ and callable(value)


def _default(value) -> str:
    """A default as it is typed; functions by their name, not by their address."""
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    text = repr(value.tolist() if hasattr(value, "tolist") else value)
    return type(value).__qualname__ if " at 0x" in text else text


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
        + ("" if p.default is p.empty else f"={_default(p.default)}")
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
    if inspect.isroutine(value) or is_ours(value):
        return [path + signature(value)]
    return [f"{path} = {_default(value)}"]


def lines() -> list[str]:
    """One line a name: its signature at the shortest path, elsewhere what it equals."""
    found: dict[Any, str] = {}
    lines = []
    for module in sorted(MODULES, key=lambda m: (m.__name__.count("."), m.__name__)):
        for name in names(module):
            path, value = f"{module.__name__}.{name}", getattr(module, name)
            # By name, because a collector of doctests may import a module twice.
            key = id(value)
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
