"""Benchmarks, one per file: where their examples come from, what is measured. Adding one adds a line to NAMES."""

NAMES = {
    "chair": "chair:CHAIR",
    "pope": "pope:POPE",
    "amber": "amber:AMBER",
    "rh_auc": "rh_auc:RHAUC",
    "sycophancy": "sycophancy:Sycophancy",
    "number": "number:Number",
}
