"""The functions-framework entry point of ``register``."""

from shop.runtime.framework import entry_point

main = entry_point("register")
