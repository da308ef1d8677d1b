"""The matcher of the embedded world: built, trained, examined, exported with its card."""
