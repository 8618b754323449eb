"""SLM Hub: mirror small language models, convert them, serve them."""

from importlib.metadata import version

__version__ = version("slmhub")
