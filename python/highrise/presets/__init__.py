"""The presets of `highrise up`: complete descriptions of an assistant, as TOML."""
