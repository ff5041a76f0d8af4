"""Whether the example of a docstring shows a value that the function computes."""

import ast
import doctest
from collections.abc import Collection, Iterator

# What zeros of the same kind would show too.
_FORM = {"shape", "dtype", "ndim", "size", "len", "type", "isinstance", "callable"}
_FORM |= {"__name__", "__doc__", "__qualname__"}
_NOTHING = {"()", "[]", "{}", "''", "None", "set()"}


def shows(text: str, names: Collection[str]) -> bool:
    """Returns whether an example calls a function and prints a value of the call.

    A shape, a length or a type is not a value, nor is an empty result. An error is one
    of a check, beside a call that passes. A call may be within a function that the
    example defines or transforms. A skipped line shows nothing.

    Args:
      text: The docstring.
      names: The names of the function.
    """
    known, passed, refused = _Known(set(names)), False, False
    for example in doctest.DocTestParser().get_examples(text):
        if example.options.get(doctest.SKIP):
            continue
        shown = example.want.strip()
        for statement in ast.parse(example.source).body:
            known.read(statement)
            if not any(map(known.is_value, _printed(statement))):
                continue
            if example.exc_msg is not None:
                refused = True
            elif not shown:
                passed = True
            elif shown not in _NOTHING:
                return True
    return passed and refused


def _printed(statement: ast.stmt) -> Iterator[ast.expr]:
    """Yields the expressions that a statement shows."""
    if isinstance(statement, ast.Expr):
        yield statement.value
    else:
        for part in ast.walk(statement):
            if isinstance(part, ast.Expr):
                yield part.value


def _last(node: ast.AST) -> str:
    """Returns the name of a function, without its module or object."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


class _Known:
    """Which variables of an example hold the function, or what it computed."""

    def __init__(self, functions: set[str]) -> None:
        self.functions, self.values = functions, set[str]()

    def is_function(self, node: ast.AST) -> bool:
        """Returns whether an expression is the function, or made of it."""
        if isinstance(node, ast.Call):
            given = (*node.args, *(keyword.value for keyword in node.keywords))
            return any(map(self.is_function, given))
        return _last(node) in self.functions

    def is_value(self, node: ast.AST) -> bool:
        """Returns whether an expression depends on what a call of it computed."""
        match node:
            case ast.Attribute(attr=name) if name in _FORM:
                return False
            case ast.Call(func=of) if self.is_function(of):
                return True
            case ast.Call(func=of) if _last(of) in _FORM:
                return False
            # Such as map(len, ...).
            case ast.Call(func=of, args=[first, *_]) if _last(first) in _FORM:
                return _last(of) != "map" and any(map(self.is_value, node.args))
            case ast.Name(id=name):
                return name in self.values
            case ast.Lambda(body=body):
                return self.is_value(body)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                for part in node.generators:
                    self.assign(part.target, part.iter)
                parts = [getattr(node, n, None) for n in ("elt", "key", "value")]
                return any(part and self.is_value(part) for part in parts)
        return any(map(self.is_value, ast.iter_child_nodes(node)))

    def assign(self, target: ast.AST, value: ast.AST) -> None:
        """Keeps what the names of a target hold."""
        names = {part.id for part in ast.walk(target) if isinstance(part, ast.Name)}
        for kept, holds in (
            (self.values, self.is_value(value)),
            (self.functions, self.is_function(value)),
        ):
            if holds:
                kept |= names

    def read(self, statement: ast.stmt) -> None:
        """Keeps what the variables of a statement hold after it."""
        for part in ast.walk(statement):
            match part:
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        self.assign(target, value)
                case ast.AugAssign(target=target, value=value):
                    self.assign(target, value)
                case ast.For(target=target, iter=value):
                    self.assign(target, value)
                case ast.withitem(
                    context_expr=value, optional_vars=ast.AST() as target
                ):
                    self.assign(target, value)
                case ast.FunctionDef(name=name, decorator_list=made):
                    if any(map(self.is_value, part.body)):
                        self.functions.add(name)
                    if any(map(self.is_function, made)):
                        self.functions.add(name)
                case ast.Expr(value=ast.Call() as call) if self.is_value(call):
                    # It may change its arguments, such as a folder, or its object.
                    self.assign(call, call)
