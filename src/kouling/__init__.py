"""kouling 口令: hears voice commands in live audio, small enough for a device.

>>> import kouling
>>> recognizer = kouling.load("en-commands")
>>> for portion in portions:
...     for command in recognizer.accept(portion):
...         print(command.name, command.start_s, command.confidence)
"""

from kouling.commands import Command, CommandSet
from kouling.config import Config
from kouling.recognizer import Recognizer, load, model_names

__version__ = "0.1.0"

__all__ = ["Command", "CommandSet", "Config", "Recognizer", "load", "model_names"]
