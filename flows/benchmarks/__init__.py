"""Benchmarks, one per file: where their examples come from, what is measured. Adding one adds a line to NAMES."""

NAMES = {
    "chair": "chair:CHAIR",
    "pope": "pope:POPE",
    "amber": "amber:AMBER",
    "rh_auc": "rh_auc:RHAUC",
    "sycophancy": "sycophancy:Sycophancy",
    "number": "number:Number",
    "limits": "limits:Limits",
    "repope": "closed.repope:RePOPE",
    "mme": "closed.mme:MME",
    "mmvp": "closed.mmvp:MMVP",
    "hallusionbench": "closed.hallusionbench:HallusionBench",
    "dash_b": "closed.dash_b:DASHB",
}
