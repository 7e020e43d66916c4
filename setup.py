"""The wheel's tag, which depends on the Python that builds it. All else is in pyproject.toml."""

import sysconfig

from setuptools import setup

# One wheel serves every Python from 3.11 on, but not a free-threaded one, which has no limited API: it needs its own.
free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
setup(options={} if free_threaded else {"bdist_wheel": {"py_limited_api": "cp311"}})
