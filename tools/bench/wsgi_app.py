"""The app of one function, for WSGI servers that load an app by name."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from typing import Any

from shop.registry import spec_of
from shop.runtime.bootstrap import make_app
from shop.runtime.wsgi import wsgi


def make() -> Callable[..., Any]:
    """The app of the function named in FUNCTION_NAME."""
    gc.disable()
    app = make_app((spec_of(os.environ["FUNCTION_NAME"]),))
    threading.Thread(target=lambda: app.services.database.warm(), daemon=True).start()
    app.warm()
    gc.freeze()
    gc.enable()
    return wsgi(app)
