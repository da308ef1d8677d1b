"""The page to try: `veridical demo`, by Gradio (extra `demo`)."""
