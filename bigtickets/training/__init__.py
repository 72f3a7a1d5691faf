"""How one model is trained: tasks and data, engine, loop, evaluation, checkpoints."""
