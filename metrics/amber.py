"""AMBER: what a description invents, misses and expects, and yes/no questions about existence, attributes, relations.

Wang et al., "AMBER: An LLM-free Multi-dimensional Benchmark for MLLMs Hallucination Evaluation", 2023,
arXiv 2311.07397. Percentages as its program (commit 534babf) prints them are `official()`; everything else is 0 to 1.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from .amber_score import (
    HIGHER_IS_BETTER,
    AnswerCounts,
    DiscriminativeScore,
    GenerativeCounts,
    GenerativeScore,
    ResponseScore,
    amber_score,
    official_score,
)
from .chair_words import _nltk_data, _nltk_tools, treebank_words
from .pope_answers import parse as parse_yes_no

__all__ = [
    "HIGHER_IS_BETTER",
    "Amber",
    "AnswerCounts",
    "DiscriminativeScore",
    "GenerativeCounts",
    "GenerativeScore",
    "ResponseScore",
    "amber_score",
    "official_score",
]

THRESHOLD = 0.8

# type in annotations.json -> the dimensions it counts for; relation has two type names, one of them without a prefix
DIMENSIONS = {
    "discriminative-hallucination": ("existence",),
    "discriminative-attribute-state": ("attribute", "state"),
    "discriminative-attribute-number": ("attribute", "number"),
    "discriminative-attribute-action": ("attribute", "action"),
    "discriminative-relation": ("relation",),
    "relation": ("relation",),
}


def same_word(a: str, b: str) -> float:
    """1 for the same word, else 0."""
    return float(a == b)


@cache
def same_sense(a: str, b: str) -> float:
    """1 if two words are the same or their most common noun sense in WordNet is one (couch, sofa), else 0.

    Raises:
        LookupError: NLTK's data is missing; says how to get it.
    """
    if a == b:
        return 1.0
    with _nltk_data():
        from nltk.corpus import wordnet

        first, second = wordnet.synsets(a, "n"), wordnet.synsets(b, "n")
    return float(bool(first and second) and first[0] == second[0])


@cache
def _spacy() -> Callable[[str, str], float]:
    try:
        import spacy

        read = cache(spacy.load("en_core_web_lg"))
    except (ImportError, OSError) as error:
        raise LookupError(
            "similarity='spacy' needs spaCy's vectors: `pip install spacy` and `python -m spacy download "
            "en_core_web_lg`. Without them use similarity='wordnet' and say so beside the figures."
        ) from error
    return lambda a, b: float(read(a).similarity(read(b)))


def spacy_vectors(a: str, b: str) -> float:
    """What the official program compares: cosine of spaCy's en_core_web_lg vectors.

    Raises:
        LookupError: spaCy or its model is missing; says how to get it.
    """
    return _spacy()(a, b)


SIMILARITIES: dict[str, Callable[[str, str], float]] = {
    "wordnet": same_sense,
    "exact": same_word,
    "spacy": spacy_vectors,
}


class Amber:
    """Scores answers against AMBER's annotations.

    Args:
        folder: where annotations.json, relation.json and safe_words.txt lie, and query_*.json with the images; the
            official repository and its data/ are laid out otherwise and are read too. Or their content: a mapping with
            items and queries by id, relations, and safe words.
        similarity: which words are near enough to stand for each other, above 0.8: one of these names, or a function
            of two words.
            "wordnet": the same word, or the same most common noun sense. **This is ours.** The official program
            compares vectors of spaCy's en_core_web_lg (400 MB, not on PyPI). Of the 87,153 pairs of AMBER's 418 words
            ours takes 14, all synonyms; vectors also take words that are merely related, so that CHAIR here should
            be the higher one. Not comparable with published figures to the last digits.
            "exact": the same word only.
            "spacy": the official one, where its model is installed.
        nouns: text -> the nouns in it, instead of those that NLTK finds; for a vocabulary of one's own.

    Nouns are the words that NLTK tags NN…, in the text as written: a capital at the start of a sentence or a
    capitalised plural slips through, as officially. Every result names its similarity.

    Raises:
        FileNotFoundError: no such file in the folder; says what was looked for.
        ValueError: a file that is no JSON (with the line), or an unknown similarity.
    """

    def __init__(
        self, folder: str | Path | Mapping[str, Any], similarity: str | Callable[[str, str], float] = "wordnet",
        nouns: Callable[[str], Sequence[str]] | None = None,
    ):  # fmt: skip
        if isinstance(similarity, str) and similarity not in SIMILARITIES:
            raise ValueError(f"no similarity {similarity!r}. Known: {', '.join(SIMILARITIES)}, or a function.")
        self.similarity = similarity if isinstance(similarity, str) else getattr(similarity, "__name__", "custom")
        self._similar = SIMILARITIES[similarity] if isinstance(similarity, str) else similarity
        self._read = nouns
        self.items: dict[int, dict[str, Any]]
        self.relations: dict[str, list[str]]
        if isinstance(folder, Mapping):
            self.folder = Path()
            self.items, self.relations, self.safe = folder["items"], folder["relations"], frozenset(folder["safe"])
            self.queries = folder["queries"]
        else:
            self.folder = Path(folder)
            self.items = {item["id"]: item for item in _json(self._find("annotations.json"))}
            self.relations = _json(self._find("relation.json"))
            self.safe = frozenset(self._find("safe_words.txt").read_text(encoding="utf-8").splitlines())
        self.vocabulary = frozenset(self.relations).union(*self.relations.values())

    def __repr__(self) -> str:
        return f"Amber({str(self.folder)!r}, similarity={self.similarity!r})"

    @cached_property
    def queries(self) -> dict[int, dict[str, Any]]:
        """{id, image, query} by id, descriptions and questions."""
        names = ("query_generative.json", "query_discriminative.json")
        return {row["id"]: row for name in names for row in _json(self._find(name))}

    def nouns(self, text: str) -> list[str]:
        """The nouns of a text that AMBER knows, singular, every occurrence, in order.

        Raises:
            LookupError: NLTK's data is missing; says how to get it.
        """
        if self._read is not None:
            return [noun for noun in self._read(text) if noun in self.vocabulary]
        tag, lemma = _nltk_tools()
        found = (lemma(word, "n") for word, mark in tag(treebank_words(text)) if mark.startswith("NN"))
        return [noun for noun in found if noun in self.vocabulary]

    def describe(self, number: int, response: str) -> ResponseScore:
        """One description against its image's annotation.

        For each noun in turn: a safe word is fine. A true object or an associate of one covers it, and is fine. An
        expected absent object, an associate of it or a similar word marks it; then a word similar to a true object
        covers that and is fine all the same. Anything else is hallucinated.

        As officially, associates are looked up before the objects themselves (where "forest" and "tree" are true,
        "tree" covers "forest"), the first match decides, and an object listed twice is covered at most once.
        """
        item = self._item(number, generative=True)
        truth, expected = self._names(item["truth"]), self._names(item["hallu"])
        nouns, wrong = self.nouns(response), []
        covered: set[int] = set()
        marked: set[int] = set()
        for noun in nouns:
            if noun in self.safe:
                wrong.append(False)
                continue
            place = _first(same_word, noun, truth)
            if place is None:
                tempted = (_first(similar, noun, expected) for similar in (same_word, self._similar))
                marked.update(found for found in tempted if found is not None)
                place = _first(self._similar, noun, truth)
            if place is not None:
                covered.add(place)
            wrong.append(place is None)
        counts = GenerativeCounts(
            responses=1,
            with_hallucination=int(any(wrong)),
            nouns=len(nouns),
            hallucinated=sum(wrong),
            truth=len(item["truth"]),
            covered=len(covered),
            expected=len(item["hallu"]),
            fallen_for=len(marked),
        )
        return ResponseScore(response, nouns, wrong, counts)

    def generative(self, responses: Mapping[int, str]) -> GenerativeScore:
        """Descriptions by id (1 to 1004). An empty one names nothing and counts as clean, as officially.

        Raises:
            ValueError: none, or an id that is not a description's.
            TypeError: a response that is no string.
        """
        _check(responses, "descriptions")
        found = {number: self.describe(number, text) for number, text in responses.items()}
        return GenerativeScore(found, self._images(found), self.similarity)

    def discriminative(self, answers: Mapping[int, str], protocol: str = "official") -> DiscriminativeScore:
        """Answers to the yes/no questions by id (1005 to 15220).

        Args:
            answers: id -> text of the model.
            protocol: "official": exactly "Yes" or "No", anything else is wrong, "Yes." and "yes" too.
                "strict": yes or no as a whole word and not both, in any case (as POPE's `strict`).

        Raises:
            ValueError: none, an id that is not a question's, an unknown protocol.
            TypeError: an answer that is no string.
        """
        if protocol not in ("official", "strict"):
            raise ValueError(f"no AMBER protocol {protocol!r}. Known: official, strict.")
        _check(answers, "answers")
        found = {}
        for number, answer in answers.items():
            truth = self._item(number, generative=False)["truth"]
            exact = {"Yes": "yes", "No": "no"}.get(answer, "unparsed")
            word = exact if protocol == "official" else parse_yes_no(answer, "strict")
            found[number] = AnswerCounts(
                1, int(word == truth), int(word == "no"), int(truth == "no"),
                int(word == truth == "no"), int(word == "unparsed"),
            )  # fmt: skip
        dimensions = {number: DIMENSIONS[self.items[number]["type"]] for number in found}
        return DiscriminativeScore(found, dimensions, self._images(found), protocol)

    def _names(self, words: Sequence[str]) -> list[tuple[str, int]]:
        """(word, place of the object that it stands for): associates first, then the objects."""
        beside = [(near, place) for place, word in enumerate(words) for near in self.relations.get(word, ())]
        return beside + [(word, place) for place, word in enumerate(words)]

    def _item(self, number: int, generative: bool) -> dict[str, Any]:
        item = self.items.get(number)
        if item is None or (item["type"] == "generative") is not generative:
            kind = "description" if generative else "question"
            numbers = [n for n, i in self.items.items() if (i["type"] == "generative") is generative]
            raise ValueError(
                f"id {number!r} is no {kind} of {self.folder}; those are {min(numbers)} to {max(numbers)}, as numbers."
            )
        return item

    def _images(self, numbers: Iterable[int]) -> dict[int, str]:
        return {number: self.queries[number]["image"] for number in numbers}

    def _find(self, name: str) -> Path:
        places = [self.folder / part / name for part in ("", "query", "data", "data/query")]
        for place in places:
            if place.is_file():
                return place
        raise FileNotFoundError(
            f"no {name} in {self.folder} or its query/, data/ and data/query/; needed: the data folder of AMBER's "
            "repository (annotations.json, relation.json, safe_words.txt, query_*.json)."
        )


def _first(similarity: Callable[[str, str], float], noun: str, names: Sequence[tuple[str, int]]) -> int | None:
    return next((place for word, place in names if similarity(noun, word) > THRESHOLD), None)


def _check(texts: Mapping[int, str], what: str) -> None:
    if not texts:
        raise ValueError(f"no {what} to score; needed: {{id: text, …}}.")
    for number, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"the text of id {number!r} is a string; found {type(text).__name__}: {text!r:.80}")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno} is not JSON ({error.msg}).") from error
