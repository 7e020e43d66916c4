"""Docstrings, comments, messages and the names of tests are plain English, without phrases that are hard to read, and short."""

import ast
import io
import re
import tokenize

import pytest

STAGES = ("engine", "export", "bench")
EVERYTHING = (*STAGES, "tests")
DATA = ("export/parity/texts.py",)  # the texts that graphs are checked on are not messages
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "engine/**/*.md", "bench/README.md")

# The phrase, and how to say it instead.
PHRASES = {
    r"\b(?<![Tt]here )(is|are|was|were|there's) no (?!longer|more)(?=[a-z]+\b)(?!one\b)": "'is not an X', 'without X'",
    r"\balone\b": "only",
    r"\bheld against\b": "compared with",
    r"\bbeside\b": "next to",
    r"\bof (its|their|our) own\b": "its own X, a separate X",
    r"\b(ours|theirs)\b": "fusedbert's, our kernels",
    r"\bmeanwhile\b": "at the same time",
    r"\b(tells?|told)\b": "says, reports, is reported",
    r"\banew\b": "again",
    r"\b(let|lets|letting) go of\b": "free, release",
    r"\bfound out\b": "detected",
    r"\b(nobody|somebody)\b": "name who",
    r"\bcome to\b(?! an end)": "amount to",
}
FIRST_WORDS = re.compile(r"(What|Which|Where|Whether|How|From|That|Whoever|Whatever)\b")


def sources(repository, folders=STAGES):
    for folder in folders:
        yield from sorted((repository / folder).rglob("*.py"))


def docstrings(tree):
    """Yield (line, text) of every docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def messages(tree):
    """Yield (line, text) of every string that reads like a sentence: what errors, warnings and --help show."""
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.lineno, node.value


def names(tree):
    """Yield (line, words of the name) of every test."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")


def comments(text):
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def without_code(text):
    return re.sub(r"\b[Ll]eaves? \w+ alone\b|``[^`]*``|`[^`]*`|^ *>>> .*$|\"[^\"]*\"", "", text, flags=re.MULTILINE)


def found(text):
    """List the phrases of a text, each with what to write instead."""
    plain = without_code(text)
    return [f"{match[0]!r}: {advice}" for phrase, advice in PHRASES.items() for match in re.finditer(phrase, plain)]


def complaints(repository, of, folders=EVERYTHING, exempt=()):
    lines = []
    for path in sources(repository, folders):
        if path.relative_to(repository).as_posix() in exempt:
            continue
        text = path.read_text(encoding="utf-8")
        for line, words in of(text):
            if " " in words.strip():
                lines += [f"{path.relative_to(repository)}:{line} {each}" for each in found(words)]
    return lines


def test_no_docstring_has_a_phrase_that_is_hard_to_read(repository):
    assert complaints(repository, lambda text: docstrings(ast.parse(text))) == []


def test_no_comment_has_a_phrase_that_is_hard_to_read(repository):
    assert complaints(repository, comments) == []


def test_no_message_has_a_phrase_that_is_hard_to_read(repository):
    assert complaints(repository, lambda text: messages(ast.parse(text)), folders=STAGES, exempt=DATA) == []


def test_no_name_of_a_test_has_a_phrase_that_is_hard_to_read(repository):
    assert complaints(repository, lambda text: names(ast.parse(text)), folders=("tests",)) == []


def test_no_page_has_a_phrase_that_is_hard_to_read(repository):
    pages = [path for pattern in PAGES for path in repository.glob(pattern)]
    assert len(pages) > 10
    lines = []
    for path in pages:
        text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        lines += [f"{path.relative_to(repository)} {each}" for each in found(text)]
    assert lines == []


def test_docstrings_name_the_thing_first(repository):
    lines = [
        f"{path.relative_to(repository)}:{line} {text.splitlines()[0]}"
        for path in sources(repository, EVERYTHING)
        for line, text in docstrings(ast.parse(path.read_text(encoding="utf-8")))
        if FIRST_WORDS.match(text)
    ]
    assert lines == []


def test_docstrings_are_short(repository):
    words = lines = 0
    for path in sources(repository):
        code = path.read_text(encoding="utf-8")
        words += sum(len(text.split()) for _, text in docstrings(ast.parse(code)))
        lines += code.count("\n")
    assert words <= 1.3 * lines


@pytest.mark.parametrize(
    "text", ["It is no text.", "The CPU alone runs it.", "Files are held against it.", "A lock of its own."]
)
def test_a_hard_phrase_is_detected(text):
    assert found(text)


@pytest.mark.parametrize("text", ["It is no longer read.", "``is no text``", "Leave it alone.", "It is not a text."])
def test_other_phrases_pass(text):
    assert not found(text)
