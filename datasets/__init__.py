"""Examples with their ground truth: the embedded world, COCO folders, POPE questions."""

if __name__ == "datasets":
    raise ImportError(
        "this is veridical.datasets, found as top-level `datasets` because the repository root is on sys.path; "
        "run `pytest` instead of `python -m pytest`, or start Python in another folder, "
        "so that Hugging Face's `datasets` is found"
    )


def photos(folder=None):
    """54 real photos under CC BY 2.0 that `veridical data photos` fetches; see `coco_photos.photos.photos`."""
    from .coco_photos.photos import photos as found

    return found(folder)
