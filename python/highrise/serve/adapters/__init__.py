"""Floor 6, adapters: one file for each foreign library whose name stands in no other module of the floor."""
