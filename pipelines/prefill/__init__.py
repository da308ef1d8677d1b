"""Work on the prompts of a run that is done once: encoded images, and keys and values that several passes share."""
