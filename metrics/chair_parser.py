"""The objects that captions mention, and their score against what is in the images."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from . import chair_words
from .chair_images import of_images
from .chair_score import CaptionScore, ChairCounts, ChairScore, Mentions


class Words(NamedTuple):
    """A caption as CHAIR reads it.

    Args:
        raw: its words. tokens: these after normalising and joining double words. starts: each token's first word.
        spans: where each word stands in the caption, (start, end) in characters.
    """

    raw: list[str]
    tokens: list[str]
    starts: list[int]
    spans: list[tuple[int, int]]


class Chair:
    """Finds the objects that captions mention and scores them against what is in the images.

    Args:
        synonyms: file with one category per line, its name first, then its terms, split by ", ". None is the
            embedded world's vocabulary.
        family: how words are normalised before they are looked up.
            "wordnet": NLTK's words and tags, WordNet's lemmas; the default with a synonym file.
            "pattern": NLTK's words, singular forms as Pattern 3.6 guesses them.
            "exact": words as they stand, longest phrase of the vocabulary first; the default without a file. For
            vocabularies that list plurals. Needs no NLTK.

    The first two follow the official programs, quirks included: a verb can be an object (skiing -> skis), negation
    is ignored, only the double words of a fixed table are joined, "seat" vanishes where "toilet" is mentioned.

    >>> chair = Chair()
    >>> m = chair.parse("Two dogs beside a stop sign.")
    >>> m.objects, m.indices, len(m.tokens)
    (['dog', 'stop sign'], [1, 4], 6)
    >>> r = chair.score({1: "Two dogs beside a cat.", 2: "A horse."}, {1: {"dog"}, 2: {"horse", "car"}})
    >>> r.chair_s, round(r.chair_i, 4), round(r.recall, 4), r.length
    (0.5, 0.3333, 0.6667, 4.5)

    Raises:
        FileNotFoundError: no synonym file at the path.
        ValueError: an unusable synonym file, or an unknown family.
        LookupError: NLTK's data is missing (when the first caption is parsed); says how to get it.
    """

    def __init__(self, synonyms: str | Path | None = None, family: str | None = None):
        family = family or ("exact" if synonyms is None else "wordnet")
        if family not in chair_words.NORMALISERS:
            raise ValueError(f"no word family {family!r}. Known: {', '.join(sorted(chair_words.NORMALISERS))}.")
        self.family = family
        self.synonyms = Path(chair_words.WORLD_SYNONYMS if synonyms is None else synonyms)
        self.terms = chair_words.read_synonyms(self.synonyms)
        self.categories = list(dict.fromkeys(self.terms.values()))
        self._longest = max(len(term.split()) for term in self.terms)

    def __repr__(self) -> str:
        return f"Chair(synonyms={str(self.synonyms)!r}, family={self.family!r})"

    def read(self, caption: str) -> Words:
        """A caption's words, its tokens, and where both stand.

        Raises:
            TypeError, LookupError: as `parse`.
        """
        if not isinstance(caption, str):
            raise TypeError(f"a caption is a string; found {type(caption).__name__}: {caption!r:.80}")
        split = chair_words.split_words if self.family == "exact" else chair_words.treebank_words
        raw = split(caption.lower())
        normal = chair_words.NORMALISERS[self.family](raw)
        if self.family == "exact":
            tokens, starts = chair_words.join_exact(normal, self.terms, self._longest)
        else:
            tokens, starts = chair_words.join_double_words(normal)
        return Words(raw, tokens, starts, chair_words.locate(raw, caption))

    def parse(self, caption: str, tokens: int | None = None) -> Mentions:
        """The objects that a caption mentions, by the official algorithm of the chosen family.

        Args:
            tokens: mentions within the first so many tokens alone; the caption is read whole all the same, since a
                word's tag may hang on what follows.

        Raises:
            TypeError: the caption is no string.
            LookupError: NLTK's data is missing.
        """
        raw, joined, starts, spans = self.read(caption)
        kept = list(zip(joined, starts, strict=True))
        if self.family != "exact" and "toilet" in joined and "seat" in joined:
            kept = [(token, start) for token, start in kept if token != "seat"]
        size = len(raw) if tokens is None or tokens >= len(starts) else starts[tokens]
        # The official index is looked up by place in the list from which "seat" is already gone.
        found = [(word, start, starts[place]) for place, (word, start) in enumerate(kept)
                 if word in self.terms and start < size]  # fmt: skip
        ends = dict(zip(starts, [*starts, len(raw)][1:], strict=True))
        return Mentions(
            words=[word for word, _, _ in found],
            objects=[self.terms[word] for word, _, _ in found],
            indices=[index for _, _, index in found],
            tokens=joined[:tokens],
            positions=[start for _, start, _ in found],
            spans=[(spans[start][0], spans[ends[start] - 1][1]) for _, start, _ in found],
            size=size,
        )

    def repeated(self, caption: str) -> bool:
        """Whether a caption mentions a category more than once.

        >>> Chair().repeated("A dog and a puppy."), Chair().repeated("A dog and a cat.")
        (True, False)
        """
        objects = self.parse(caption).objects
        return len(set(objects)) < len(objects)

    def score(
        self, captions: Mapping[int | str, str], truth: Mapping[int | str, Collection[str]],
        tokens: Mapping[int | str, int] | None = None,
    ) -> ChairScore:  # fmt: skip
        """Captions by image id against the categories in the images.

        Args:
            captions: image id -> caption. An empty caption counts as a caption that mentions nothing.
            truth: image id -> category names, from `ground_truth`; may come from another family than the captions'
                (published tables mix them). An image it lacks counts as empty, as officially, with a log line.
            tokens: image id -> how many tokens of its caption count, as in `parse`; None counts all.

        Raises:
            ValueError: no captions; no image in common, or ids of another type; a name that is no category.
            TypeError: a caption that is no string.
        """
        if not captions:
            raise ValueError("no captions to score; needed: {image id: caption, …}.")
        there = of_images(truth, captions.keys(), self.categories)
        return ChairScore(
            {
                image: self._score(caption, there[image], None if tokens is None else tokens[image])
                for image, caption in captions.items()
            },
            self.family,
        )

    def _score(self, caption: str, truth: frozenset[str], tokens: int | None = None) -> CaptionScore:
        mentions = self.parse(caption, tokens)
        wrong = [name not in truth for name in mentions.objects]
        distinct = set(mentions.objects)
        counts = ChairCounts(
            captions=1,
            with_hallucination=int(any(wrong)),
            mentions=len(wrong),
            hallucinated=sum(wrong),
            correct=len(distinct & truth),
            mentioned=len(distinct),
            truth=len(truth),
            tokens=len(mentions.tokens),
            repeating=int(len(distinct) < len(wrong)),
        )
        return CaptionScore(caption, mentions, truth, wrong, counts)
