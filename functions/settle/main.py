"""The functions-framework entry point of ``settle``."""

from shop.runtime.framework import entry_point

main = entry_point("settle")
