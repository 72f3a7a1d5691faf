"""Where steps run: worker, local executor, signals."""
