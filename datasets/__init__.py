"""Examples with their ground truth: the embedded world, COCO folders, POPE questions."""

if __name__ == "datasets":
    raise ImportError(
        "this is veridical.datasets, found as top-level `datasets` because the repository root is on sys.path; "
        "run `pytest` instead of `python -m pytest`, or start Python in another folder, "
        "so that Hugging Face's `datasets` is found"
    )
