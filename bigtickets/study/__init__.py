"""What is to be run and what has run: the study file, its steps, the run folder. No torch."""
