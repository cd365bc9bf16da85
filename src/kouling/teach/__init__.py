"""Own commands: models from text (`kouling teach`)."""
