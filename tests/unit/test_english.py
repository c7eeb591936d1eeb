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

VERBS = frozenset(
    """
    abort accept act add admit adopt advance answer append apply assemble attach attack authorize await
    bind build call cancel change charge check classify clean clear close collect combine commit compare
    compile configure connect construct continue convert copy count create cut decide decode decompress
    decrement delete
    deliver describe disable disarm discard disconnect do download drain draw drop echo encode end enter
    escape evaluate exclude exit export fail feed fetch fill find flag flood flush follow forget fork
    format freeze generate give hand handle hash hold ignore import increment insert install intercept issue
    iterate join keep kill leave let list listen load lock log look lose make mark match measure merge
    move never open parse pass pause ping poll postpone prepend press print probe process provision
    publish put query queue raise read reconnect record recreate redact reduce refresh register reject
    relay release reload remove renew replace report request reserve respond restart restore restrict
    resume retry return rotate run sample save schedule scroll select send serialize serve set share
    shift ship show shut sign signal silence skip sleep spend split stall start stop store strip
    subscribe summarize suspend tail take terminate test truncate undo unpack unregister unsubscribe
    update validate wait watch withdraw wrap write yield vote
    """.split()  # noqa: SIM905
)
"""First words of function docstrings; add the verb of a new one."""


@pytest.fixture(scope="module")
def texts() -> list[Text]:
    """Return every text of the repository."""
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
    """The docstring of a function states what it does; that of a property or a test may be a noun phrase."""
    found = [
        str(text)
        for text in texts
        if text.kind == "function docstring" and text.text.split()[0].rstrip(".,:;").lower() not in VERBS
    ]
    assert not found, "\n".join(found)


def test_docstrings_of_classes_are_noun_phrases(texts: list[Text]) -> None:
    """A class's docstring names the thing that it is."""
    found = [str(text) for text in texts if text.kind == "class docstring" and NOT_A_NOUN.match(text.text)]
    assert not found, "\n".join(found)


def test_a_sample_is_drawn_by_its_seed(texts: list[Text]) -> None:
    """The same seed draws the same sample, of the documented size."""
    drawn = sample(7, texts)
    assert {heading: len(found) for heading, found in drawn.items()} == {
        heading: count for heading, (_, count) in SAMPLE.items()
    }
    assert drawn == sample(7, texts)
    assert set(chain(*drawn.values())) != set(chain(*sample(8, texts).values()))
