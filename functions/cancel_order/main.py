"""The functions-framework entry point of ``cancel_order``."""

from shop.runtime.framework import entry_point

main = entry_point("cancel_order")
