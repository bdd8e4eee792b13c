"""The functions-framework entry point of ``api_docs``."""

from shop.runtime.framework import entry_point

main = entry_point("api_docs")
