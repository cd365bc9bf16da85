"""Own commands: models from text (`kouling teach`)."""

from pathlib import Path

# Running speech, single words and noise that are no command, made by recipes/background.py; see the NOTICE in it.
BACKGROUND = Path(__file__).parent / "background.tar"
