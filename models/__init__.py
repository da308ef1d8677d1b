"""The embedded LVLMs: small enough to ship, trained on the embedded world, on which everything here runs offline."""

from pathlib import Path

EMBEDDED = Path(__file__).parent / "embedded"
MATCHER = Path(__file__).parent / "matcher"
DETECTORS = Path(__file__).parent / "detectors"
DIRECTIONS = Path(__file__).parent / "directions"
EMBEDDED_SMOLLM2 = Path(__file__).parent / "embedded_smollm2"
SHIPPED = {"embedded": EMBEDDED, "embedded-smollm2": EMBEDDED_SMOLLM2}  # models by the name that loads them
