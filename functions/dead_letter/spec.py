"""Store events that ran out of retries."""

from shop.primitives.spec import FunctionSpec, Scale

SPEC = FunctionSpec(
    name="dead_letter",
    summary="Store every signed event that ran out of retries, and raise an operator alert.",
    database_role="ops",
    cold_start_budget=1.2,
    needs=("postgres",),
    receives_dead_letters=True,
    scale=Scale(concurrency=2, max_scale=2),
)
