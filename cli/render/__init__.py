"""What the commands print: methods, answers, scores, comparisons."""
