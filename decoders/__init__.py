"""Published methods that mitigate hallucination while decoding, one per file. Adding one adds a line to NAMES."""

NAMES = {
    "greedy": "greedy:Greedy",
    "vcd": "vcd:VCD",
    "var": "var:VAR",
    "vhr": "vhr:VHR",
    "vsv": "vista:VSV",
    "sla": "vista:SLA",
    "vista": "vista:VISTA",
}
