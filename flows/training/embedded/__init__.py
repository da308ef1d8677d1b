"""The embedded LVLM: built, trained, examined, exported with its card."""
