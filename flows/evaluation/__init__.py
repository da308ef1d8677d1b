"""An evaluation as steps: prepare, answer, score, report; and what is done with its folder afterwards."""
