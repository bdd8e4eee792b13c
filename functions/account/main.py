"""The functions-framework entry point of ``account``."""

from shop.runtime.framework import entry_point

main = entry_point("account")
