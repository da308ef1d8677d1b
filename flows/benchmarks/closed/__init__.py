"""Published sets of closed questions as benchmarks, from the files and images that the user has."""
