"""The functions-framework entry point of ``refund``."""

from shop.runtime.framework import entry_point

main = entry_point("refund")
