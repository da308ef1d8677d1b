"""The command line `veridical`: options, commands, and what they print."""
