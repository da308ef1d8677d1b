"""CHAIR: which of the objects that a caption mentions are not in the image.

Rohrbach et al., "Object Hallucination in Image Captioning", EMNLP 2018, arXiv 1809.02156.

Two programs circulate under this name and disagree on about one tricky caption in six, so a result says which family
ran: `wordnet` (OPERA and most papers on large models) or `pattern` (the original). `exact` is ours, for vocabularies
that list every surface form, like the embedded world's.
"""

from .chair_parser import Chair
from .chair_score import HIGHER_IS_BETTER, CaptionScore, ChairCounts, ChairScore, Mentions
from .chair_truth import ground_truth, ready_made_truth
from .chair_words import truncate_last_sentence

__all__ = [
    "HIGHER_IS_BETTER",
    "CaptionScore",
    "Chair",
    "ChairCounts",
    "ChairScore",
    "Mentions",
    "ground_truth",
    "ready_made_truth",
    "truncate_last_sentence",
]
