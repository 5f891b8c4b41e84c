"""What an experiment measures at checkpoints, by name (`catalogue`)."""
