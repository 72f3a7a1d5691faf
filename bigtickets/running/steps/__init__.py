"""What each kind of step does: train, score, cut, and what it leaves."""
