"""dead_letter: keeps what no function took."""

from shop.primitives.spec import FunctionSpec, Scale

SPEC = FunctionSpec(
    name="dead_letter",
    summary="Keeps every event that ran out of retries, and raises an alarm for it.",
    database_role="ops",
    needs=("postgres",),
    receives_dead_letters=True,
    scale=Scale(concurrency=2, max_scale=2),
)
