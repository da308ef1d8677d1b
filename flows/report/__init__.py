"""One HTML file that opens from disk: what reports of evaluations and of captioning jobs share."""
