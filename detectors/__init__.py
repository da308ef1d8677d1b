"""Published detectors of hallucinated words, one per file. Adding one adds a line to NAMES.

A detector declares readings, then maps the record of a pass to a risk per token; higher means more likely
hallucinated.
"""

NAMES = {
    "token_probability": "sureness:TokenProbability",
    "entropy": "sureness:Entropy",
    "position": "position:Position",
    "image_attention": "image_attention:ImageAttention",
    "lookback_lens": "lookback_lens:LookbackLens",
    "vhd": "vhd:VHD",
}
