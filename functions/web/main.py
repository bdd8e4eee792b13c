"""The functions-framework entry point of ``web``."""

from shop.runtime.framework import entry_point

main = entry_point("web")
