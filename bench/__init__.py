"""The engine measured against other runtimes, on the same models; `make bench`. Not part of the package."""
