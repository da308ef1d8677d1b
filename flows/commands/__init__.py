"""The commands of `veridical`, one file per group. Each has an `app`, which `flows.command_line` puts together."""
