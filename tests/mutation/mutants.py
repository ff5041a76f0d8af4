"""A stratified random sample of mutants."""

import ast
import difflib
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.modules import find_modules
from cosmic_ray.mutating import mutate_code
from cosmic_ray.work_item import MutationSpec, WorkItem

Position = tuple[int, int]

# No operator changes these, and they are most of a file.
_NEVER = ("endmarker", "fstring_string", "name", "newline", "string")
_PUNCTUATION = frozenset("()[]{},.:=")
_NAMED = ("file", "function", "old", "new")  # What names an equivalent mutant.


@dataclass(frozen=True)
class Mutant:
    """A mutant of the sample.

    Attributes:
      item: For cosmic-ray; the id stays the same where a file is moved.
      place: In which of the places it is.
      lines: Of the statement that it changes.
      equivalent: Why no test can kill it; None if one can.
    """

    item: WorkItem
    place: str
    lines: range
    equivalent: str | None

    @property
    def path(self) -> str:
        return self.item.mutations[0].module_path.as_posix()


def sample(config: Mapping[str, Any], count: int, seed: int) -> list[Mutant]:
    """The same number of mutants of each place, at most one of a token.

    They are those with the smallest hashes of the seed and of what they change, so that
    a larger sample contains a smaller one and edits elsewhere leave it as it is.
    """
    places = config["sample"]["places"]
    equivalents = config.get("equivalent", ())
    _check_equivalents(equivalents, itertools.chain(*places.values()))
    chosen = []
    for place, paths in places.items():
        tokens: dict[str, list[tuple[str, MutationSpec]]] = {}
        for path in sorted(find_modules(map(Path, paths))):
            for text, spec in _all(path, config):
                where = _digest(seed, path.stem, text, spec.start_pos[1])
                what = _digest(where, spec.operator_name, spec.occurrence % 2)
                tokens.setdefault(where, []).append((what, spec))
        mutants = (
            _mutant(min(tokens[where], key=lambda pair: pair[0])[1], place, equivalents)
            for where in sorted(tokens)
        )
        mutants = (mutant for mutant in mutants if mutant is not None)
        chosen.extend(itertools.islice(mutants, -(-count // len(places))))
    return chosen


def _check_equivalents(
    equivalents: Sequence[Mapping[str, str]], paths: Iterable[str]
) -> None:
    """Raise ValueError for an equivalent mutant of code that there is not any more."""
    sources: dict[str, str] = {}
    for path in find_modules(map(Path, paths)):
        text = " ".join(path.read_text(encoding="utf-8").split())
        sources[path.name] = sources.get(path.name, "") + text
    for one in equivalents:
        text = sources.get(one["file"], "")
        name = one["function"].rpartition(".")[2]
        if one["old"] not in text or name not in text:
            raise ValueError(f"an equivalent mutant's code is gone: {one}")


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _all(path: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, MutationSpec]]:
    """All mutants of a file that may be drawn, each with its line and function."""
    filters = config["cosmic-ray"]["filters"]["operators-filter"]
    unwanted = re.compile("|".join(filters["exclude-operators"]))
    source = path.read_text(encoding="utf-8")
    lines, tree = source.splitlines(), ast.parse(source)
    spans = list(_unwanted_spans(tree, config["sample"]["exclude-decorators"]))
    nodes = [
        node
        for node in ast_nodes(get_ast(source))
        if node.type not in _NEVER and getattr(node, "value", "") not in _PUNCTUATION
    ]
    for name in plugins.operator_names():
        operator = plugins.get_operator(name)
        if unwanted.match(name) or operator.arguments():
            continue
        positions = (
            position
            for node in nodes
            for position in operator().mutation_positions(node)
        )
        for occurrence, (start, end) in enumerate(positions):
            line = lines[start[0] - 1].strip()
            if any(first <= start < last for first, last in spans):
                continue
            function = _function(tree, start[0])
            spec = MutationSpec(path, name, occurrence, start, end, {}, function)
            yield f"{function}: {line}", spec


def _unwanted_spans(
    tree: ast.Module, decorators: str
) -> Iterator[tuple[Position, Position]]:
    """Where annotations, types, errors and such decorators begin and end."""
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        heads = getattr(node, "decorator_list", ())
        parts += [one for one in heads if re.search(decorators, ast.unparse(one))]
        if isinstance(node, ast.Raise):
            parts.append(node)
        if isinstance(node, ast.Assign) and node in tree.body:
            value = node.value
            if isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
                parts.append(value)
        for part in filter(None, parts):
            at = part in heads  # Its @ stands before it.
            start = part.lineno, part.col_offset - at
            yield start, (part.end_lineno, part.end_col_offset)


def _enclosing(tree: ast.Module, line: int) -> list[ast.stmt]:
    """The statements around a line, from the outermost; decorators belong to theirs."""

    def first(node: ast.stmt) -> int:
        decorators = getattr(node, "decorator_list", [])
        return min([node.lineno, *(one.lineno for one in decorators)])

    around = (node for node in ast.walk(tree) if isinstance(node, ast.stmt))
    around = [node for node in around if first(node) <= line <= node.end_lineno]
    return sorted(around, key=lambda node: (first(node), -node.end_lineno))


def _function(tree: ast.Module, line: int) -> str:
    named = (ast.FunctionDef, ast.ClassDef)
    around = (node for node in _enclosing(tree, line) if isinstance(node, named))
    return ".".join(node.name for node in around)


def _lines(tree: ast.Module, line: int) -> range:
    """The lines of a statement; of a compound one its head, of a function its body."""
    node = _enclosing(tree, line)[-1]
    if isinstance(node, ast.FunctionDef):
        return range(node.body[0].lineno, node.end_lineno + 1)
    if isinstance(node, ast.ClassDef) or not hasattr(node, "body"):
        return range(node.lineno, node.end_lineno + 1)
    return range(node.lineno, node.body[0].lineno)


def _mutant(
    spec: MutationSpec, place: str, equivalents: Sequence[Mapping[str, str]]
) -> Mutant | None:
    """The mutant of the sample, or None if it is not Python."""
    source = spec.module_path.read_text(encoding="utf-8")
    operator = plugins.get_operator(spec.operator_name)()
    mutated = mutate_code(source, operator, spec.occurrence)
    try:
        compile(mutated, spec.module_path, "exec")
    except SyntaxError:  # Such as another operator for the ** of {**mapping}.
        return None
    diff = difflib.unified_diff(
        source.splitlines(), mutated.splitlines(), lineterm="", n=0
    )
    changes = list(diff)[2:]
    old, new = (
        " ".join(" ".join(line[1:] for line in changes if line[0] == sign).split())
        for sign in "-+"
    )
    function = spec.definition_name
    reasons = (
        one["why"]
        for one in equivalents
        if [one[key] for key in _NAMED] == [spec.module_path.name, function, old, new]
    )
    key = _digest(spec.module_path.stem, function, old, new, spec.start_pos[1])[:16]
    lines = _lines(ast.parse(source), spec.start_pos[0])
    item = WorkItem.single(key, spec)
    return Mutant(item, place, lines, next(reasons, None))


def differences(diff: str) -> str:
    """A mutant's diff without its head and context."""
    return "\n".join(itertools.dropwhile(lambda s: s[:2] != "@@", diff.splitlines()))
