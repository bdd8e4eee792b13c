"""The functions-framework entry point of ``login``."""

from shop.runtime.framework import entry_point

main = entry_point("login")
