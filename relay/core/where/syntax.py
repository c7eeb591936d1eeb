"""Parser of conditions: from tokens to a tree, with the grammar and the precedence of CEL.

Invariant: the number of nodes and the depth of the tree are bounded, and so are the time that a client can
make the relay spend on a request and the recursion of everything that walks a tree.
"""

from typing import Any, Final

from tickertape.relay.core.where.tokens import END, Token, WhereError, tokenize

MAX_DEPTH: Final = 32
"""Maximum nesting of a condition; terms of one ``&&`` or ``||`` lie side by side."""

MAX_NODES: Final = 400
"""Maximum number of names, literals and operators in a condition."""

MAX_PATTERNS: Final = 4
"""Maximum number of regular expressions in a condition, each of which takes up to 0.5 ms to compile."""

_PRECEDENCE: Final = {
    "||": 1,
    "&&": 2,
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!=", "in"), 3),
    **dict.fromkeys("+-", 4),
    **dict.fromkeys("*/%", 5),
}
_KEYWORDS: Final = frozenset({"true", "false", "null", "in"})
_RESERVED: Final = frozenset(
    {
        "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    }
)  # fmt: skip
_CONSTANTS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}
_MAX_INT: Final = 1 << 63


class Node:
    """Node of a tree.

    Attributes:
        kind: ``literal``, ``event``, ``field``, ``has``, ``index``, ``list``, ``call``, ``not``, ``negate``,
            ``binary``, ``and``, ``or`` or ``if``.
        position: number of its first or decisive character, from 1.
        value: value of a literal; name of a field, function or operator.
        children: operands, in order; of a method, its target comes first.
        method: whether a call has the form ``target.name(…)``.
        depth: height of the tree below it, from 1.
    """

    __slots__ = ("children", "depth", "kind", "method", "position", "value")

    def __init__(
        self, kind: str, position: int, value: Any, children: tuple["Node", ...], *, method: bool = False
    ) -> None:
        self.kind = kind
        self.position = position
        self.value = value
        self.children = children
        self.method = method
        self.depth: int = 1 + max((child.depth for child in children), default=0)

    def __repr__(self) -> str:
        parts = [self.kind, *([] if self.value is None else [repr(self.value)]), *map(repr, self.children)]
        return f"({' '.join(parts)})"


def parse(source: str) -> Node:
    """Parse a condition.

    Args:
        source: text of the condition; its length is the caller's to limit.

    Raises:
        WhereError: it is not valid CEL, or uses what is not supported.
    """
    return _Parser(source).parse()


class _Parser:
    """Parser of one condition, by precedence climbing."""

    def __init__(self, source: str) -> None:
        self._tokens = tokenize(source)
        self._token = next(self._tokens)
        self._nodes = 0
        self._patterns = 0
        self._depth = 0

    def parse(self) -> Node:
        if self._token.kind == END:
            raise WhereError("the condition is empty", 1)
        node = self._expression()
        if self._token.kind != END:
            raise WhereError(f"expected an operator before {self._token}", self._token.position)
        return node

    def _expression(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._too_deep(self._token.position)
        node = self._binary(1)
        question = self._token
        if self._accept("?"):
            chosen = self._binary(1)
            self._expect(":")
            node = self._node("if", question, None, node, chosen, self._expression())
        self._depth -= 1
        return node

    def _binary(self, minimum: int) -> Node:
        left = self._unary()
        while (precedence := self._precedence()) >= minimum:
            operator = self._advance()
            right = self._binary(precedence + 1)
            kind = {"&&": "and", "||": "or"}.get(operator.value)
            if kind is None:
                left = self._node("binary", operator, operator.value, left, right)
            elif left.kind == kind:
                # Side by side: any number of terms, without depth.
                left = self._node(kind, operator, None, *left.children, right)
            else:
                left = self._node(kind, operator, None, left, right)
        return left

    def _precedence(self) -> int:
        token = self._token
        if token.kind == "operator" or (token.kind == "name" and token.value == "in"):
            return _PRECEDENCE.get(token.value, 0)
        return 0

    def _unary(self) -> Node:
        first = self._token
        if not (first.kind == "operator" and first.value in ("!", "-")):
            return self._member(self._primary())
        count = 0
        while self._accept(first.value):
            count += 1
            self._count(first)
        if first.value == "-" and self._token.kind in ("int", "double"):
            count -= 1
            node = self._member(self._number(self._advance(), negative=True))
        else:
            node = self._member(self._primary())
        # Any even number has the effect of two, which still check the type; any odd one that of one.
        for _ in range(count and 2 - count % 2):
            node = self._node("not" if first.value == "!" else "negate", first, None, node)
        return node

    def _member(self, node: Node) -> Node:
        while True:
            token = self._token
            if self._accept("."):
                name = self._name(_KEYWORDS)
                if self._accept("("):
                    node = self._node("call", name, name.value, node, *self._arguments(")"), method=True)
                else:
                    node = self._node("field", name, name.value, node)
            elif self._accept("["):
                index = self._expression()
                self._expect("]")
                node = self._node("index", token, None, node, index)
            elif token.kind == "operator" and token.value == "{":
                raise WhereError("maps and messages are not supported", token.position)
            else:
                return node

    def _primary(self) -> Node:
        token = self._token
        if token.kind in ("int", "double"):
            return self._number(self._advance(), negative=False)
        if token.kind == "string":
            return self._node("literal", self._advance(), token.value)
        if token.kind == "name":
            return self._named()
        if self._accept("("):
            node = self._expression()
            self._expect(")")
            return node
        if self._accept("["):
            return self._node("list", token, None, *self._arguments("]"))
        raise WhereError(f"expected a value before {token}", token.position)

    def _named(self) -> Node:
        token = self._token
        if token.value in _CONSTANTS:
            return self._node("literal", self._advance(), _CONSTANTS[token.value])
        name = self._name(_KEYWORDS | _RESERVED)
        if self._accept("("):
            arguments = self._arguments(")")
            if name.value == "has":
                return self._has(name, arguments)
            return self._node("call", name, name.value, *arguments)
        if name.value != "event":
            raise WhereError(
                f"unknown name {name}; fields are written event.{name.value[:40]}", name.position
            )
        return self._node("event", name, None)

    def _has(self, name: Token, arguments: tuple[Node, ...]) -> Node:
        if len(arguments) != 1 or arguments[0].kind != "field":
            raise WhereError("has() takes a field, such as has(event.metadata.account)", name.position)
        return self._node("has", name, arguments[0].value, *arguments[0].children)

    def _number(self, token: Token, *, negative: bool) -> Node:
        sign = -1 if negative else 1
        if token.kind == "double":
            number = float(token.value)
            if number == float("inf"):
                raise WhereError("the number exceeds the range of a double", token.position)
            return self._node("literal", token, sign * number)
        # At most 2 KB long, but ``int`` rejects more than 4 300 digits itself.
        value = sign * int(token.value, 16 if token.value.startswith("0x") else 10)
        if not -_MAX_INT <= value < _MAX_INT:
            raise WhereError("the number exceeds 64 bits", token.position)
        return self._node("literal", token, value)

    def _arguments(self, closing: str) -> tuple[Node, ...]:
        found: list[Node] = []
        while not self._accept(closing):
            found.append(self._expression())
            if not self._accept(","):
                self._expect(closing)
                break
            if closing == ")" and self._token.value == closing:  # a list may end with a comma
                raise WhereError(f"expected a value before {self._token}", self._token.position)
        return tuple(found)

    def _name(self, excluded: frozenset[str]) -> Token:
        token = self._token
        if token.kind != "name" or token.value in excluded:
            problem = (
                f"{token} is a reserved word" if token.kind == "name" else f"expected a name before {token}"
            )
            raise WhereError(problem, token.position)
        return self._advance()

    def _node(self, kind: str, token: Token, value: Any, *children: Node, method: bool = False) -> Node:
        self._count(token)
        if kind == "call" and value == "matches":
            self._patterns += 1
            if self._patterns > MAX_PATTERNS:
                raise WhereError(f"the condition has more than {MAX_PATTERNS} matches()", token.position)
        node = Node(kind, token.position, value, children, method=method)
        if node.depth > MAX_DEPTH:
            raise self._too_deep(token.position)
        return node

    def _count(self, token: Token) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise WhereError(f"the condition has more than {MAX_NODES} parts", token.position)

    def _too_deep(self, position: int) -> WhereError:
        return WhereError(f"the condition is nested deeper than {MAX_DEPTH} levels", position)

    def _advance(self) -> Token:
        token = self._token
        self._token = next(self._tokens)
        return token

    def _accept(self, operator: str) -> bool:
        if self._token.kind == "operator" and self._token.value == operator:
            self._advance()
            return True
        return False

    def _expect(self, operator: str) -> None:
        if not self._accept(operator):
            raise WhereError(f"expected '{operator}' before {self._token}", self._token.position)
