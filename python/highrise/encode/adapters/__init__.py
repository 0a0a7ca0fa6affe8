"""Floor 3, adapters: one file for each foreign library whose name stands in no other module of the floor."""
