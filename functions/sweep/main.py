"""The functions-framework entry point of ``sweep``."""

from shop.runtime.framework import entry_point

main = entry_point("sweep")
