"""Work in several stages, on top of everything that trains."""
