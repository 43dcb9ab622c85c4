"""Forms of layers, matrices and embeddings in a graph: a file each, which registers itself."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
