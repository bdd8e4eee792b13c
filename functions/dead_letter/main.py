"""The functions-framework entry point of ``dead_letter``."""

from shop.runtime.framework import entry_point

main = entry_point("dead_letter")
