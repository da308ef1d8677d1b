"""Singular forms of English words as Pattern 3.6 guesses them, wrong guesses included.

CHAIR's original program normalises words with Pattern's context-free guess, so a caption's score depends on its
mistakes: a bus becomes a "bu" and is never found, ties become a "ty". The tables below were written from that
program's observed output; PatternLite itself is no dependency, since importing it downloads corpora.
"""

import re
from functools import lru_cache


def _words(text: str) -> list[str]:
    return text.split()


# These keep their form, and so does every ending of one of them: "s" and "ears" are endings of "shears".
KEPT = _words("""
advice bison bread bream breeches britches butter carp chassis cheese christmas clippers cod contretemps corps debris
diabetes djinn eland electricity elk equipment flounder fruit furniture gallows garbage georgia graffiti gravel
happiness headquarters herpes high-jinks homework information innings jackanapes ketchup knowledge love luggage
mackerel mathematics mayonnaise measles meat mews mumps mustard news pincers pliers proceedings progress rabies
research rice salmon sand scissors series shears software species swine swiss trout tuna understanding water whiting
wildebeest
""")

# Their plural in -ies belongs to -ie, not to -y.
IN_IE = _words("""
auntie beanie birdie bogie bombie collie cookie cutie doggie eyrie freebie goonie groupie hankie hippie hoagie hottie
indie junkie laddie laramie lingerie meanie newbie nightie oldie pixie quickie reverie rookie softie sortie stoolie
sweetie techie toughie valkyrie veggie weenie yuppie zombie
""")

# The first that ends the word decides: "our" makes four a "fmy".
IRREGULAR = dict(
    pair.split(":")
    for pair in _words("""
atlantes:atlas atlases:atlas axes:axe beeves:beef brethren:brother children:child corpora:corpus corpuses:corpus
ephemerides:ephemeris feet:foot ganglia:ganglion geese:goose genera:genus genii:genie graffiti:graffito helves:helve
kine:cow leaves:leaf loaves:loaf men:man mongooses:mongoose monies:money moves:move mythoi:mythos numena:numen
occipita:occiput octopodes:octopus opera:opus opuses:opus our:my oxen:ox penes:penis penises:penis people:person
sexes:sex soliloquies:soliloquy teeth:tooth testes:testis trilbys:trilby turves:turf zoa:zoon
""")
)

# ending, letters to cut, letters to add; the first that fits decides.
ENDINGS = [
    (re.compile(f"(?:{ending})$"), cut, add)
    for ending, cut, add in [
        (".ae", 1, ""),
        (".itis|series|.news", 0, ""),
        (".eaux|shoes|movies|.ombies", 1, ""),
        ("quizzes", 3, ""),
        ("matrices", 3, "x"),
        ("(?:ap|vert|ind)ices", 4, "ex"),
        ("(?:alias|status|o|bus|x|ch|ss|sh)es", 2, ""),
        ("[ocptvir|]i", 1, "us"),
        ("(?:cris|ax|test)es", 2, "is"),
        ("[ml|]ice", 3, "ouse"),
        ("(?:[^aeiouy]|qu)ies", 3, "y"),
        ("[aeo]lves|[^d]eaves|arves", 3, "f"),
        ("erves", 1, ""),
        ("[nlw]ives", 3, "fe"),
        ("[lr]ves", 3, "f"),
        ("[aeo]ves|[sth]ives", 1, ""),
        ("[^f]ves", 3, "fe"),
        (".analyses", 3, "asis"),
        ("naly(?:ses)|(?:ba|diagno|parenthe|progno|synop|the)ses|.opses|.yses", 3, "sis"),
        ("(?:[hdronbp]|cl)oses", 1, ""),
        (".oses", 2, "is"),
        ("[ti]a", 1, "um"),
        ("s", 1, ""),
    ]
]
PREPOSITIONS = frozenset(
    _words("""
about above across after among around at athwart before behind below beneath beside besides between betwixt beyond but
by during except for from in into near of off on onto out over since till to under until unto upon with
""")
)


@lru_cache(maxsize=65536)
def singular(word: str) -> str:
    """The singular of a lower-cased word by Pattern's rules; no context, so verbs and names are cut too.

    >>> [singular(word) for word in ("buses", "bus", "ties", "people", "police", "four", "glasses")]
    ['bus', 'bu', 'ty', 'person', 'polouse', 'fmy', 'glass']
    """
    first, *rest = word.split("-")
    if rest and rest[0] in PREPOSITIONS:
        return "-".join([singular(first), *rest])
    if word.endswith("'"):
        return singular(word[:-1]) + "'s"
    if any(kept.endswith(word) for kept in KEPT):
        return word
    for name in IN_IE:
        if word.endswith(name + "s"):
            return word
    for ending, form in IRREGULAR.items():
        if word.endswith(ending):
            return word[: -len(ending)] + form
    if word.startswith("oxen"):
        return "ox" + word[4:]
    for pattern, cut, add in ENDINGS:
        if pattern.search(word):
            return word[: len(word) - cut] + add
    return word
