"""The prompts for a caption, apart from what draws or reads images: options and help import them."""

DETAIL_PROMPT = "Please describe this image in detail."
BRIEF_PROMPT = "Describe this image in one sentence."
