"""Trie that finds the patterns that match a subject.

It branches by token, as in NATS servers, so a lookup costs time per match, not per entry.

Invariants:

1. ``matching`` agrees with ``tickertape.contracts.subjects.matches`` for every valid pattern and subject.
2. A node without values and children is removed, so the size of a trie is bounded by its entries.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Node(Generic[T]):
    """Node of a trie: the values whose path ends here, and child nodes by token."""

    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.values: dict[T, None] = {}


class PatternTrie(Generic[T]):
    """Trie of values by the tokens of a pattern."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, text: str, value: T) -> None:
        """Add a value at a pattern; several values can share it."""
        node = self._root
        for token in text.split("."):
            child = node.children.get(token)
            if child is None:
                child = node.children[token] = _Node()
            node = child
        node.values[value] = None

    def discard(self, text: str, value: T) -> None:
        """Remove a value, if present."""
        path = [self._root]
        tokens = text.split(".")
        for token in tokens:
            child = path[-1].children.get(token)
            if child is None:
                return
            path.append(child)
        path[-1].values.pop(value, None)
        for token in reversed(tokens):
            node = path.pop()
            if node.values or node.children:
                return
            del path[-1].children[token]

    def __bool__(self) -> bool:
        return bool(self._root.children)

    def matching(self, subject: str) -> Iterable[T]:
        """Return the values of all patterns that match a subject, each once."""
        found: dict[T, None] = {}
        nodes = [self._root]
        for token in subject.split("."):
            next_nodes = []
            for node in nodes:
                children = node.children
                # A token of a subject is never a wildcard, so no child is visited twice.
                next_nodes += [child for key in (token, "*") if (child := children.get(key)) is not None]
                # ``>`` matches one or more tokens: this one and all that follow.
                if (rest := children.get(">")) is not None:
                    found |= rest.values
            nodes = next_nodes
        for node in nodes:
            found |= node.values
        return found
