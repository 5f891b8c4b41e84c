"""What every room may use: checks of input, registries, files, texts, statistics; nothing is imported with the room."""
