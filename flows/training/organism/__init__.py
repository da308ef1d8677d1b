"""The second model organism: SmolLM2 learns to see the embedded world; trained, examined, exported with its card."""
