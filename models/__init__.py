"""The embedded LVLM: small enough to ship, trained on the embedded world, on which everything here runs offline."""

from pathlib import Path

EMBEDDED = Path(__file__).parent / "embedded"
MATCHER = Path(__file__).parent / "matcher"
DETECTORS = Path(__file__).parent / "detectors"
DIRECTIONS = Path(__file__).parent / "directions"
