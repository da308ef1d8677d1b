"""54 photos of COCO under CC BY 2.0: the list of them, and their reader."""
