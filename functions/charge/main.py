"""The functions-framework entry point of ``charge``."""

from shop.runtime.framework import entry_point

main = entry_point("charge")
