"""The functions-framework entry point of ``place_order``."""

from shop.runtime.framework import entry_point

main = entry_point("place_order")
