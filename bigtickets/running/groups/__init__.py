"""Groups of ranks on one machine or many: who meets whom, torchrun, signals, exit codes."""
