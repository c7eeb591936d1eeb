"""Which patterns match a subject, and which subjects match a pattern, without asking each pair.

Both are tries by token, as in NATS servers: a look-up costs what matches, not what there is.

Invariants:

1. Both ``matching`` agree with ``tickertape.contracts.subjects.matches`` for every legal pattern and subject.
2. A node without values and children is taken out, so a trie holds no more than what was put in.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Node(Generic[T]):
    """What lies at a token: values whose last token this is, and what comes below."""

    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.values: dict[T, None] = {}


class _Trie(Generic[T]):
    """Values by the tokens of a dotted text."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, text: str, value: T) -> None:
        """Put a value at a pattern or subject; several may lie there."""
        node = self._root
        for token in text.split("."):
            children = node.children.get(token)
            if children is None:
                children = node.children[token] = _Node()
            node = children
        node.values[value] = None

    def discard(self, text: str, value: T) -> None:
        """Take a value out; nothing happens when it is not there."""
        path = [self._root]
        tokens = text.split(".")
        for token in tokens:
            children = path[-1].children.get(token)
            if children is None:
                return
            path.append(children)
        path[-1].values.pop(value, None)
        for token in reversed(tokens):
            node = path.pop()
            if node.values or node.children:
                return
            del path[-1].children[token]

    def __bool__(self) -> bool:
        return bool(self._root.children)


class PatternTrie(_Trie[T]):
    """Values by pattern; ``matching`` takes a subject."""

    def matching(self, subject: str) -> Iterable[T]:
        """Values of all patterns that match a subject, each once."""
        found: dict[T, None] = {}
        nodes = [self._root]
        for token in subject.split("."):
            following = []
            for node in nodes:
                children = node.children
                following += [child for wanted in (token, "*") if (child := children.get(wanted)) is not None]
                if (rest := children.get(">")) is not None:
                    found |= rest.values
            nodes = following
        for node in nodes:
            found |= node.values
        return found


class SubjectTrie(_Trie[T]):
    """Values by subject; ``matching`` takes a pattern."""

    def matching(self, pattern: str) -> list[T]:
        """Values of all subjects that a pattern matches."""
        nodes = [self._root]
        for token in pattern.split("."):
            if token == ">":
                nodes = _below(nodes)
                break
            if token == "*":
                nodes = [child for node in nodes for child in node.children.values()]
            else:
                nodes = [child for node in nodes if (child := node.children.get(token)) is not None]
        return [value for node in nodes for value in node.values]


def _below(nodes: list[_Node[T]]) -> list[_Node[T]]:
    """All nodes below these, without them."""
    found: list[_Node[T]] = []
    while nodes:
        nodes = [child for node in nodes for child in node.children.values()]
        found += nodes
    return found
