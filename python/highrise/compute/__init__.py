"""Floor 1, compute. In: hardware and cluster descriptions. Out: a plan, and jobs on Slurm, Kubernetes or this machine."""
