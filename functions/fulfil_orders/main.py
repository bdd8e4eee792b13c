"""The functions-framework entry point of ``fulfil_orders``."""

from shop.runtime.framework import entry_point

main = entry_point("fulfil_orders")
