"""What every room may use and nothing here depends on: checks of input, registries, files, statistics."""
