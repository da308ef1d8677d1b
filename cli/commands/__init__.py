"""The commands of `veridical`, one file per group. Each has an `app`, which `cli.main` puts together."""
