"""The functions-framework entry point of ``list_products``."""

from shop.runtime.framework import entry_point

main = entry_point("list_products")
