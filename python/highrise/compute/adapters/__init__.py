"""Floor 1, adapters: one file per external system (CUDA driver, Slurm, Kubernetes), and this machine itself."""
