"""Where a run stands: status, logs, progress, TensorBoard's view."""
