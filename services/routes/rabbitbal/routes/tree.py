"""YAML as plain values, each with its place in the text, and within bounds."""

from dataclasses import dataclass, field
from typing import Any

import yaml

from rabbitbal.routes.table import Problem

Path = tuple[int | str, ...]
Place = tuple[int, int]

MOST_BYTES = 1024 * 1024
MOST_NODES = 200_000
DEEPEST = 20

_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "timestamp")}


class Unreadable(Exception):
    """There is no tree in the text."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


@dataclass
class Tree:
    """``places`` has line and column, from 1, of each value by its path; ``names`` those of the keys of mappings."""

    value: Any = None
    places: dict[Path, Place] = field(default_factory=dict)
    names: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path) -> Place:
        """Of the value, or of what is nearest above it."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, (1, 1))


def parse(text: bytes) -> Tree:
    """Raises Unreadable. A key that is there twice is a problem of the tree."""
    if len(text) > MOST_BYTES:
        raise Unreadable(Problem(1, 1, "", f"the file is larger than {MOST_BYTES} bytes"))
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        column = error.start - text.rfind(b"\n", 0, error.start)
        raise Unreadable(Problem(line, column, "", "not UTF-8")) from None
    loader = None
    try:
        loader = yaml.SafeLoader(decoded)
        node = loader.get_single_node()
        tree = Tree()
        if node is not None:
            tree.value = _Reader(loader, tree).read(node, ())
        return tree
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        raise Unreadable(Problem(*at, "", f"not YAML: {error.problem or error.context}")) from None
    except yaml.reader.ReaderError as error:
        line = decoded.count("\n", 0, error.position) + 1
        raise Unreadable(Problem(line, 1, "", f"not YAML: {error.reason}")) from None
    except RecursionError:
        raise Unreadable(Problem(1, 1, "", "nested too deeply")) from None
    finally:
        if loader is not None:
            loader.dispose()


class _Reader:
    def __init__(self, loader: yaml.SafeLoader, tree: Tree) -> None:
        self._loader = loader
        self._tree = tree
        self._nodes = 0

    def read(self, node: yaml.Node, path: Path) -> Any:
        place = (node.start_mark.line + 1, node.start_mark.column + 1)
        self._nodes += 1
        # An alias stands for all that it names: a few lines can mean a thousand million values.
        if self._nodes > MOST_NODES:
            raise Unreadable(Problem(*place, "", f"more than {MOST_NODES} values"))
        if len(path) > DEEPEST:
            raise Unreadable(Problem(*place, "", "nested too deeply"))
        self._tree.places[path] = place
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, number)) for number, item in enumerate(node.value)]
        if node.tag not in _TAGS:
            raise Unreadable(Problem(*place, "", f"the tag {node.tag[:60]!r} has no meaning here"))
        if node.tag.endswith(":timestamp"):
            return str(node.value)
        try:
            return self._loader.construct_object(node)
        except ValueError as error:
            raise Unreadable(Problem(*place, "", f"not a value: {error}")) from None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in node.value:
            place = (name.start_mark.line + 1, name.start_mark.column + 1)
            if not isinstance(name, yaml.ScalarNode) or name.tag == "tag:yaml.org,2002:merge":
                raise Unreadable(Problem(*place, "", "a key must be a plain word; write merged mappings out"))
            key = str(name.value)
            if key in found:
                self._tree.problems.append(Problem(*place, dotted(path), f"{key[:60]!r} is there twice"))
                continue
            self._tree.names[(*path, key)] = place
            found[key] = self.read(value, (*path, key))
        return found


def dotted(path: Path) -> str:
    """A path as people write it: ``routes[3].match.host``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
