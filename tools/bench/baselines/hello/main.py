"""The yardstick: the bare framework's hello-world, no database, nothing of ours."""


def main(_request: object) -> str:
    """Hello."""
    return "hello\n"
