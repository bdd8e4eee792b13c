"""The functions-framework entry point of ``notify``."""

from shop.runtime.framework import entry_point

main = entry_point("notify")
