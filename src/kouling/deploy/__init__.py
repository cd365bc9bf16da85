"""One file per runtime: how a model is exported to it, and how it runs there."""
