"""How programs read yes and no out of an answer to one of POPE's questions: five protocols."""

import re
from collections.abc import Callable
from typing import Literal

WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")  # no_, "no" and 'no' are the word no, no-one is another


def _official(answer: str) -> str:
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def _opera(answer: str) -> str:
    words = answer.replace(".", "").replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no", "NO") or word.endswith("n't") for word in words) else "yes"


def _vcd(answer: str) -> str:
    return "yes" if "yes" in answer.lower() else "no"


def _lmms_eval(answer: str) -> str:
    return "yes" if answer.lower().strip() == "yes" else "no"


def strict(answer: str) -> str:
    words = set(WORD.findall(answer.lower()))
    if ("yes" in words) == ("no" in words):
        return "unparsed"
    return "yes" if "yes" in words else "no"


READERS: dict[str, Callable[[str], str]] = {
    "official": _official,
    "opera": _opera,
    "vcd": _vcd,
    "lmms_eval": _lmms_eval,
    "strict": strict,
}


def parse(answer: str, protocol: str = "official") -> Literal["yes", "no", "unparsed"]:
    """What an answer says, as a protocol reads it: "yes" or "no"; only `strict` has a third, "unparsed".

    official: up to the first full stop, commas deleted, split at single spaces; "no" if one of the words is exactly
        No, no or not. Everything else is "yes", also "NO", "None", "There isn't" and an empty answer.
    opera: full stops and commas deleted; "no" if a word is No, no, NO or not, or ends in n't; else "yes".
    vcd: "yes" if the lower-cased answer contains "yes", else "no". That program itself looks for the label's word as
        a part of the answer ("know" has a "no"), which `score` does.
    lmms_eval: "yes" if the answer is exactly that after lower-casing and stripping, else "no". That program itself
        counts anything but the two bare words, such as "Yes.", as wrong whatever the label; so does `score`.
    strict: yes or no as a whole word and not both, in any case; else "unparsed".

    >>> parse("There is no, absolutely no bus"), parse("Nothing"), parse("1.5 no"), parse("NO")
    ('no', 'yes', 'yes', 'yes')
    >>> parse("Nothing", "strict")
    'unparsed'

    Raises:
        ValueError: unknown protocol.
        TypeError: the answer is no string.
    """
    if protocol not in READERS:
        raise ValueError(f"no POPE protocol {protocol!r}. Known: {', '.join(READERS)}.")
    if not isinstance(answer, str):
        raise TypeError(f"an answer is a string; found {type(answer).__name__}: {answer!r:.80}")
    return READERS[protocol](answer)  # type: ignore[return-value]
