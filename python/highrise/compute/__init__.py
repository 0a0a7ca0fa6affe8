"""Floor 1, compute. In: hardware and cluster descriptions. Out: a plan, jobs on Slurm, Kubernetes or this machine."""
