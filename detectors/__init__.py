"""Published detectors of hallucinated words, one per file. Adding one adds a line to NAMES.

A detector declares readings, then maps the record of a pass to a risk per token; higher means more likely
hallucinated.
"""

NAMES = {
    "token_probability": "sureness:TokenProbability",
    "entropy": "sureness:Entropy",
    "margin": "margin:Margin",
    "position": "position:Position",
    "image_attention": "image_attention:ImageAttention",
    "logit_lens": "logit_lens:LogitLens",
    "lookback_lens": "lookback_lens:LookbackLens",
    "dhcp": "dhcp:DHCP",
    "vhd": "vhd:VHD",
}
