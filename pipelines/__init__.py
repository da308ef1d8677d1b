"""An LVLM as one object: where things are in it, what should happen where, and the one engine that makes it happen."""
