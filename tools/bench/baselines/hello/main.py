"""Baseline: the hello-world of functions-framework, without a database or code of the shop."""


def main(_request: object) -> str:
    """The response body."""
    return "hello\n"
