"""Published methods that mitigate hallucination while decoding, one per file. Adding one adds a line to NAMES."""

NAMES = {
    "greedy": "greedy:Greedy",
    "vcd": "vcd:VCD",
    "icd": "icd:ICD",
    "m3id": "m3id:M3ID",
    "avc": "avc:AVC",
    "agla": "agla:AGLA",
    "rbd": "rbd:RBD",
    "var": "var:VAR",
    "vhr": "vhr:VHR",
    "vsv": "vista:VSV",
    "sla": "vista:SLA",
    "vista": "vista:VISTA",
    "pai": "pai:PAI",
    "dola": "dola:DoLa",
    "deco": "deco:DeCo",
    "imbalanced": "imbalanced:Imbalanced",
    "helpd": "helpd:HELPD",
    "gate": "gate:Gate",
}
