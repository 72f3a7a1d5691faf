"""What a study takes: memory, processes, hours; from the config alone."""
