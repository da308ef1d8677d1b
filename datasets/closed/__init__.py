"""Published files of closed questions in one form: what is asked about which image, and which belong together."""
