"""Own commands: models from text (`kouling teach`), and commands from a few recordings (`kouling enrol`)."""
