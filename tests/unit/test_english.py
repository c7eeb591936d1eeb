"""Texts that people read are plain, idiomatic English, as far as a program can tell."""

import re
from collections.abc import Iterator
from itertools import chain

import pytest

from tests.support.texts import SAMPLE, Text, all_texts, document_texts, python_texts, sample

BANNED = (
    "whoever", "nobody", "somebody", "anew", "mend", "mends", "mended", "mending", "goes on", "for ever",
    "trying on", "at once", "is away", "of it",
)  # fmt: skip
"""Words that read like a translation."""

OWN = "tests/unit/test_english.py"
"""This file, which has to name them."""

_BANNED = re.compile(rf"\b({'|'.join(BANNED)})\b", re.IGNORECASE)

_CODE = re.compile(r"(`+).+?\1")
"""Names within a sentence; they are no English."""

NOT_A_NOUN = re.compile(r"(What|Who|How|Whether|Where|When|Why|It|Its|They|And|Of|As)\b")
"""First words of a docstring that is the end of a sentence whose beginning is missing."""

NOT_A_VERB = re.compile(
    r"(A|An|The|One|Its?|They|Their|This|These|That|Those|True|False|None|All|Any|Each|Every|Both|Only|Nothing|What|"
    r"Whatever|Who|Whose|How|However|Whether|Where|Wherever|When|Why|Of|In|On|At|As|And|Or|Not|No|For|From|Like|Such|"
    r"[A-Z][a-z]+s of|[A-Z][a-z]+ of)\b"
)
"""First words of a docstring that does not begin with an imperative verb."""


@pytest.fixture(scope="module")
def texts() -> list[Text]:
    """Every text of the repository."""
    return list(all_texts())


def faults(texts: list[Text]) -> Iterator[str]:
    """Yield what is wrong, with its location."""
    for text in texts:
        if text.path != OWN and (found := _BANNED.search(_CODE.sub("", text.text))):
            yield f"{text.path}:{text.line}: {found[0]!r} in {text.kind}: {text.text[:120]}"


def test_banned_words_do_not_appear(texts: list[Text]) -> None:
    """No docstring, comment, error, log message, help text or document contains a banned word."""
    found = list(faults(texts))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        '"""Connects anew."""',
        'def f():\n    """Return all\n    of it."""',
        "x = 1  # nobody reads this",
        'raise ValueError(f"{name} is away")',
        'log.info("the client goes on")',
        'class Settings:\n    port: int = 0\n    """Mend the port."""',
    ],
)
def test_each_kind_of_text_in_python_is_checked(source: str) -> None:
    """A banned word is found in each kind of text, also across a line break and beside a placeholder."""
    assert list(faults(list(python_texts("relay/x.py", source))))


def test_identifiers_and_strings_of_tests_are_not_checked() -> None:
    """Identifiers and the data of tests may contain any word."""
    assert not list(faults(list(python_texts("tests/x.py", 'nobody = somebody.mend("at once")'))))


def test_documents_are_checked_across_line_breaks() -> None:
    """A phrase that a line break splits is found."""
    [fault] = faults(list(document_texts("README.md", "# Title\n\nThe relay reconnects at\nonce.\n")))
    assert fault.startswith("README.md:3: 'at once'")


def test_docstrings_of_functions_begin_with_a_verb(texts: list[Text]) -> None:
    """A function's docstring says what the function does; a property and a test may say what is."""
    found = [str(text) for text in texts if text.kind == "function docstring" and NOT_A_VERB.match(text.text)]
    assert not found, "\n".join(found)


def test_docstrings_of_classes_are_noun_phrases(texts: list[Text]) -> None:
    """A class's docstring names the thing that it is."""
    found = [str(text) for text in texts if text.kind == "class docstring" and NOT_A_NOUN.match(text.text)]
    assert not found, "\n".join(found)


def test_a_sample_is_drawn_by_its_seed() -> None:
    """The same seed draws the same sample, of the sizes that are promised."""
    drawn = sample(7)
    assert {heading: len(texts) for heading, texts in drawn.items()} == {
        heading: count for heading, (_, count) in SAMPLE.items()
    }
    assert drawn == sample(7)
    assert set(chain(*drawn.values())) != set(chain(*sample(8).values()))
