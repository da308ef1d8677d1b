"""The strength at which each decoder is plain decoding, for whoever wants to see that it is (`veridical check`).

NEUTRAL: settings that change nothing; most decoders then declare nothing. FAINT: settings beside them, at which the
whole method runs but moves logits by less than rounding does. A decoder without FAINT has no strength that goes to 0.
"""

NEUTRAL = {
    "greedy": "greedy",
    "vcd": "vcd:alpha=0,beta=0",
    "icd": "icd:alpha=0,beta=0",
    "m3id": "m3id:lam=0,beta=0",
    "avc": "avc:alpha=0,beta=0",
    "agla": "agla:alpha=0,beta=0",
    "rbd": "rbd:visual=0,textual=0,beta=0",
    "var": "var:move=0",
    "vhr": "vhr:alpha=1",
    "vsv": "vsv:strength=0",
    "sla": "sla:gamma=0",
    "vista": "vista:strength=0,gamma=0",
    "pai": "pai:alpha=0,gamma=1",
    "dola": "dola:layers=()",
    "deco": "deco:alpha=0",
    "imbalanced": "imbalanced:local=0,summary=0,gamma=1",
    "helpd": "helpd:weight=0",
    "gate": "gate:threshold='inf'",
}
FAINT = {
    "vcd": "vcd:alpha=1e-7,beta=0",
    "icd": "icd:alpha=1e-7,beta=0",
    "m3id": "m3id:lam=1e-7,beta=0",
    "avc": "avc:alpha=1e-7,beta=0",
    "rbd": "rbd:visual=1e-7,textual=1e-7,beta=0",
    "var": "var:move=1e-7,tau=2,min_nonsink=0,min_image=0",
    "vhr": "vhr:alpha=1.0000001",
    "vsv": "vsv:strength=1e-7",
    "sla": "sla:gamma=1e-7",
    "vista": "vista:strength=1e-7,gamma=1e-7",
    "pai": "pai:alpha=1e-7,gamma=1.0000001,beta=0",
    "imbalanced": "imbalanced:local=1e-7,summary=1e-7,gamma=1.0000001,beta=0",
    "gate": "gate:threshold=1e9",
}
