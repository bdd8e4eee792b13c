"""The functions-framework entry point of ``cart``."""

from shop.runtime.framework import entry_point

main = entry_point("cart")
