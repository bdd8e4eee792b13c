"""The functions-framework entry point of ``read_settlements``."""

from shop.runtime.framework import entry_point

main = entry_point("read_settlements")
