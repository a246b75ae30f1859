"""Imports every module of the generated client: that a module compiles does not mean that it can be used.

usage: import_all.py      (the generated package on PYTHONPATH)
"""

import importlib
import pkgutil

import keywright_client

modules = [module.name for module in pkgutil.walk_packages(keywright_client.__path__, "keywright_client.")]
for module in modules:
    importlib.import_module(module)
print(f"{len(modules)} modules imported")
