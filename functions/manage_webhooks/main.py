"""The functions-framework entry point of ``manage_webhooks``."""

from shop.runtime.framework import entry_point

main = entry_point("manage_webhooks")
