"""Studies as SLURM jobs: a cluster file and a run folder in, sbatch calls and their journal out."""
