"""From a caption to words in CHAIR's vocabulary: synonym files, the three word families, double words.

Rohrbach et al., "Object Hallucination in Image Captioning", EMNLP 2018, arXiv 1809.02156.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from .pattern_singular import singular

WORLD_SYNONYMS = Path(__file__).parent.parent / "datasets" / "world_synonyms.txt"
ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")

THEMSELVES = """
motor bike, motor cycle, air plane, traffic light, street light, traffic signal, stop light, fire hydrant, stop sign,
parking meter, suit case, sports ball, baseball bat, baseball glove, tennis racket, wine glass, hot dog, cell phone,
mobile phone, teddy bear, hair drier, potted plant, laptop computer, stove top oven, home plate, train track
"""

# Two words that are one for CHAIR, and what they become. "stove top oven" has three and never matches.
DOUBLE_WORDS: dict[str, str] = {
    **{pair.strip(): pair.strip() for pair in THEMSELVES.split(",")},
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in ANIMALS},
    "passenger jet": "jet",
    "passenger train": "train",
    "bow tie": "tie",
    "toilet seat": "toilet",
    "wine glas": "wine glass",  # Pattern's singular of glass
}

WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")
SENTENCE_END = re.compile(r"""[.!?]+["'”’)\]]*(?=\s|$)""")
QUOTES = ("``", "''")  # as NLTK writes quotation marks
NLTK_DATA = ("punkt_tab", "averaged_perceptron_tagger_eng", "wordnet")


def read_synonyms(path: str | Path) -> dict[str, str]:
    """Term -> category from a file with one category per line, terms split by ", ", the category's name first.

    Terms are taken as they stand: a stray space or a capital letter makes a term that no caption can match, as in
    the official file. Empty lines are skipped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no term in the file, or one term in two categories; says the lines.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no synonym file at {path}. `veridical data chair` fetches CHAIR's official one; "
            "Chair() without a path uses the embedded world's vocabulary."
        )
    terms: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        category, *others = line.strip().split(", ")
        for term in (category, *others):
            if terms.setdefault(term, category) != category:
                raise ValueError(
                    f"{path}: line {number} lists {term!r} under {category!r}, line {lines[term]} under "
                    f"{terms[term]!r}. A term belongs to one category: remove one of the two."
                )
            lines.setdefault(term, number)
    if not terms:
        raise ValueError(f"{path} holds no terms; needed: one category per line, terms split by a comma and a space.")
    return terms


def category_of(name: str, terms: Mapping[str, str], where: str) -> str:
    """The category that a name of an annotation file stands for; ValueError with near names if there is none."""
    if name not in terms:
        near = difflib.get_close_matches(name, terms, n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(
            f"{where}: {name!r} is no term of this vocabulary of {len(set(terms.values()))} categories.{hint} "
            "Use the synonym file that belongs to these annotations, or add a line for it."
        )
    return terms[name]


def split_words(text: str) -> list[str]:
    """Words and punctuation marks of a lower-cased text; what the exact family uses instead of NLTK.

    >>> split_words("two dogs, a cat's bowl.")
    ['two', 'dogs', ',', 'a', "cat's", 'bowl', '.']
    """
    return WORD.findall(text)


def join_exact(words: Sequence[str], terms: Mapping[str, str], longest: int) -> tuple[list[str], list[int]]:
    """Greedy longest match of the vocabulary's phrases, left to right; other words stay.

    Returns the tokens after joining and where each starts in `words`. `longest`: words in the longest phrase.
    """
    tokens, starts, here = [], [], 0
    while here < len(words):
        for size in range(min(longest, len(words) - here), 0, -1):
            phrase = " ".join(words[here : here + size])
            if size == 1 or phrase in terms:
                break
        tokens.append(phrase)
        starts.append(here)
        here += size
    return tokens, starts


def join_double_words(words: Sequence[str]) -> tuple[list[str], list[int]]:
    """The official pass over DOUBLE_WORDS: left to right, two words at a time, each pair replaced by its value.

    Returns the tokens after joining and where each starts in `words`.
    """
    tokens, starts, here = [], [], 0
    while here < len(words):
        starts.append(here)
        pair = " ".join(words[here : here + 2])
        if pair in DOUBLE_WORDS:
            tokens.append(DOUBLE_WORDS[pair])
            here += 2
        else:
            tokens.append(words[here])
            here += 1
    return tokens, starts


def singular_words(words: Iterable[str]) -> list[str]:
    """Pattern's singular of each word, without context."""
    return [singular(word) for word in words]


def lemmas(words: Sequence[str]) -> list[str]:
    """WordNet's lemma of each word for the part of speech that NLTK's tagger gives it in this caption.

    Tags J… are adjectives, V… verbs, R… adverbs, all others nouns, so a verb becomes an object: skiing -> ski.
    """
    tag, lemma = _nltk_tools()
    return [lemma(word, {"J": "a", "V": "v", "R": "r"}.get(mark[0], "n")) for word, mark in tag(words)]


def treebank_words(text: str) -> list[str]:
    """NLTK's words of a text: Punkt's sentences, then Treebank's rules ("dog's" -> dog 's, "isn't" -> is n't)."""
    with _nltk_data():
        import nltk

        return nltk.word_tokenize(text)


NORMALISERS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "wordnet": lemmas,
    "pattern": singular_words,
    "exact": list,
}


def locate(words: Sequence[str], text: str) -> list[tuple[int, int]]:
    """Where each word of a lower-cased text stands in the text: (start, end) in characters.

    NLTK writes quotation marks as `` and '', whichever of ", `` and '' stands there; a word that is not found gets an
    empty span where it should have been.

    >>> locate(["a", "``", "hot", "dog", "''"], 'A "hot dog"')
    [(0, 1), (2, 3), (3, 6), (7, 10), (10, 11)]
    """
    lowered = text.lower()
    origin = [index for index, letter in enumerate(text) for _ in letter.lower()] + [len(text)]
    spans, here = [], 0
    for word in words:
        start, size = lowered.find(word, here), len(word)
        if word in QUOTES:
            places = [(place, len(mark)) for mark in ('"', *QUOTES) if (place := lowered.find(mark, here)) >= 0]
            start, size = min(places, default=(-1, 0))
        if start < 0:
            start, size = here, 0
        here = start + size
        spans.append((origin[start], origin[here - 1] + 1 if size else origin[start]))
    return spans


def truncate_last_sentence(caption: str, at_full_stop: bool = False) -> str:
    """The caption without a last sentence that the token budget cut off; for runs of 64 new tokens.

    OPERA's tables for 64 tokens are made this way (issue 30 of its repository); with the torn sentence
    LLaVA-1.5 scores CHAIR_s 0.194 instead of 0.142. A caption in which no sentence ends stays as it is: made empty,
    it would count as one without hallucination.

    at_full_stop: as OPERA's program has it, switched off by a comment: what stands before the last full stop, wherever
    that is ("2.5"), so that nothing is left of a caption without one, nor of a last sentence that ends in "!".

    >>> truncate_last_sentence("A dog sits on a bench. Behind it stands a")
    'A dog sits on a bench.'
    >>> truncate_last_sentence("A dog sits on a bench.")
    'A dog sits on a bench.'
    >>> truncate_last_sentence("A dog that", at_full_stop=True)
    ''
    """
    if at_full_stop:
        return caption[: caption.rfind(".") + 1]
    ends = [match.end() for match in SENTENCE_END.finditer(caption)]
    return caption[: ends[-1]] if ends else caption


@contextmanager
def _nltk_data() -> Iterator[None]:
    """Turns NLTK's report of missing data into an error that says how to get it."""
    try:
        yield
    except LookupError as error:
        if isinstance(error, (KeyError, IndexError)):
            raise
        missing = re.search(r"Resource\s+\S*?'?([a-z_]+)'?\S*\s+not found", str(error))
        raise LookupError(
            f"NLTK's data {missing[1] + ' ' if missing else ''}is not here. CHAIR needs {', '.join(NLTK_DATA)}: run "
            f"`veridical data nltk`, or nltk.download(name) for each in Python, or set NLTK_DATA to a folder that has "
            "them. The families 'pattern' and 'exact' need less (punkt_tab only) or none."
        ) from error


@lru_cache(maxsize=1)
def _nltk_tools():
    with _nltk_data():
        from nltk.corpus import wordnet
        from nltk.stem import WordNetLemmatizer
        from nltk.tag import PerceptronTagger

        wordnet.ensure_loaded()
        return PerceptronTagger().tag, lru_cache(maxsize=65536)(WordNetLemmatizer().lemmatize)
