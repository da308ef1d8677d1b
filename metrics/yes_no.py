"""How evaluation programs read a yes or a no out of an answer; each reader gives "yes", "no" or "" where it reads none.

The programs disagree about one free answer in a few, so every result names its reader.
"""

import re

WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
_MARKS = ";/[]\"{}()=+\\_-><@`,?!"
_DIGIT_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_FULL_STOPS = 32  # the program hands a flag of that value over as the number of replacements


def anywhere(answer: str) -> str:
    """RePOPE's and DASH-B's: "yes" anywhere in the lower-cased answer, else "no" anywhere, as in "not" or "know".

    >>> anywhere("No, yes"), anywhere("I cannot tell"), anywhere("Unsure")
    ('yes', 'no', '')
    """
    text = answer.lower()
    return "yes" if "yes" in text else "no" if "no" in text else ""


def first_four(answer: str) -> str:
    """MME's: exactly yes or no, else whichever stands within the first four characters, yes first; not stripped.

    >>> first_four("Eyes"), first_four("Nope"), first_four("   No"), first_four("There is no bed")
    ('yes', 'no', '', '')
    """
    return anywhere(answer.lower()[:4])


def first_four_stripped(answer: str) -> str:
    """lmms-eval's for MME: stripped, full stops deleted; a single y or n counts; then as `first_four`.

    >>> first_four_stripped("N"), first_four_stripped("   No"), first_four_stripped("There is no bed")
    ('no', 'no', '')
    """
    text = answer.lower().strip().replace(".", "")
    if len(text) == 1:
        return {"y": "yes", "n": "no"}.get(text, "")
    return first_four(text)


def vlmevalkit(answer: str) -> str:
    """VLMEvalKit's: yes or no, not both, among the words once punctuation is off; asterisks and colons stay.

    A mark is deleted where one of its kind touches a space, or where a comma stands between digits; otherwise it
    becomes a space. A full stop goes unless a digit follows.

    >>> vlmevalkit("There is no bed"), vlmevalkit("**Yes**"), vlmevalkit("Answer: yes"), vlmevalkit("Eyes")
    ('no', '', 'yes', '')
    """
    text = answer.lower()
    joined = bool(_DIGIT_COMMA.search(text))
    plain = text
    for mark in _MARKS:
        touches = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if touches or joined else " ")
    return _one_of(set(_FULL_STOP.sub("", plain, count=_MOST_FULL_STOPS).split()))


def words(answer: str) -> str:
    """Ours: yes or no as a whole word and not both, in any case.

    >>> words("No."), words("No, yes"), words("**Yes**"), words("Not really")
    ('no', '', 'yes', '')
    """
    return _one_of(set(WORD.findall(answer.lower())))


def yes_else_no(answer: str) -> str:
    """lmms-eval's for HallusionBench: yes if "yes" is part of the lower-cased answer, else no.

    >>> yes_else_no("Eyes"), yes_else_no("")
    ('yes', 'no')
    """
    return "yes" if "yes" in answer.lower() else "no"


def _one_of(found: set[str]) -> str:
    if ("yes" in found) == ("no" in found):
        return ""
    return "yes" if "yes" in found else "no"
