"""The embedded world's categories: their COCO ids, the emoji that draw them and the words that name them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Category:
    """One of the COCO categories that the embedded world can draw.

    `id` and `supercategory` are COCO's. `emoji` are the sprites that draw it, one picked per object.
    `words` are the surface forms that mean it, the name first, the usual plural second.
    """

    id: int
    name: str
    supercategory: str
    emoji: Sequence[str]
    words: Sequence[str]

    @property
    def plural(self) -> str:
        return self.words[1]

    @property
    def phrase(self) -> str:
        """The name with its article, as a caption has it: "an apple", "scissors"."""
        if self.words[0] == self.words[1]:
            return self.name
        return ("an " if self.name[0] in "aeiou" else "a ") + self.name


_TABLE = """
1|person|person|🧍 🧍🏽 🧍🏿 🚶|people, persons, man, men, woman, women, child, children
2|bicycle|vehicle|🚲|bicycles, bike, bikes
3|car|vehicle|🚗 🚙|cars, automobile, automobiles, taxi, taxis
4|motorcycle|vehicle|🏍|motorcycles, motorbike, motorbikes
5|airplane|vehicle|✈|airplanes, plane, planes
6|bus|vehicle|🚌|buses
7|train|vehicle|🚆|trains
8|truck|vehicle|🚚|trucks
9|boat|vehicle|⛵|boats, sailboat, sailboats
10|traffic light|outdoor|🚦|traffic lights
13|stop sign|outdoor|🛑|stop signs
16|bird|animal|🐦 🦆|birds, duck, ducks
17|cat|animal|🐈|cats, kitten, kittens
18|dog|animal|🐕 🐩|dogs, puppy, puppies
19|horse|animal|🐎|horses
20|sheep|animal|🐑|sheep, lamb, lambs
21|cow|animal|🐄|cows, cattle
22|elephant|animal|🐘|elephants
23|bear|animal|🐻|bears
24|zebra|animal|🦓|zebras
25|giraffe|animal|🦒|giraffes
27|backpack|accessory|🎒|backpacks
28|umbrella|accessory|☂|umbrellas
31|handbag|accessory|👜|handbags
32|tie|accessory|👔|ties, necktie, neckties
33|suitcase|accessory|🧳|suitcases
34|frisbee|sports|🥏|frisbees
35|skis|sports|🎿|skis
37|sports ball|sports|⚽|sports balls, soccer ball, soccer balls
38|kite|sports|🪁|kites
41|skateboard|sports|🛹|skateboards
43|tennis racket|sports|🎾|tennis rackets
44|bottle|kitchen|🍾|bottles
46|wine glass|kitchen|🍷|wine glasses
47|cup|kitchen|☕|cups, mug, mugs
48|fork|kitchen|🍴|forks
49|knife|kitchen|🔪|knives
50|spoon|kitchen|🥄|spoons
51|bowl|kitchen|🥣|bowls
52|banana|food|🍌|bananas
53|apple|food|🍎 🍏|apples
54|sandwich|food|🥪|sandwiches
55|orange|food|🍊|oranges
56|broccoli|food|🥦|broccoli
57|carrot|food|🥕|carrots
58|hot dog|food|🌭|hot dogs
59|pizza|food|🍕|pizzas
60|donut|food|🍩|donuts, doughnut, doughnuts
61|cake|food|🎂|cakes
62|chair|furniture|🪑|chairs
63|couch|furniture|🛋|couches, sofa, sofas
64|potted plant|furniture|🪴|potted plants, plant, plants
65|bed|furniture|🛏|beds
70|toilet|furniture|🚽|toilets
72|tv|electronic|📺|tvs, television, televisions
73|laptop|electronic|💻|laptops
74|mouse|electronic|🖱|mice
76|keyboard|electronic|⌨|keyboards
77|cell phone|electronic|📱|cell phones, phone, phones
84|book|indoor|📕 📗|books
85|clock|indoor|🕰|clocks
86|vase|indoor|🏺|vases
87|scissors|indoor|✂|scissors
88|teddy bear|indoor|🧸|teddy bears
90|toothbrush|indoor|🪥|toothbrushes
"""


def _read(table: str) -> dict[str, Category]:
    rows = (line.split("|") for line in table.strip().splitlines())
    return {
        name: Category(int(number), name, group, tuple(emoji.split()), (name, *words.split(", ")))
        for number, name, group, emoji, words in rows
    }


CATEGORIES: Mapping[str, Category] = _read(_TABLE)


def synonyms() -> str:
    """The vocabulary in the format of CHAIR's synonym file: a line per category, its name first."""
    return "".join(", ".join(dict.fromkeys(c.words)) + "\n" for c in CATEGORIES.values())
