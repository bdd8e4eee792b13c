"""The functions-framework entry point of ``read_orders``."""

from shop.runtime.framework import entry_point

main = entry_point("read_orders")
