"""What the records mean: table, curves, figures, report, TensorBoard view. Opens records only."""
