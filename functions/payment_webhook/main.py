"""The functions-framework entry point of ``payment_webhook``."""

from shop.runtime.framework import entry_point

main = entry_point("payment_webhook")
