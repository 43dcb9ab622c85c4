"""Methods of weight compression: each file has the rule of a plan, the transform and the packed form."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
