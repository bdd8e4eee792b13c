"""Functions that share a process, as on OpenFaaS, work as they do alone."""

from __future__ import annotations

from collections import defaultdict

import pytest

from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs, spec_of
from shop.runtime.app import App
from shop.runtime.services import Services
from tests.harness import PAID, REFUNDED, FlowHarness, ShopHarness
from tests.ledger_postings import insert_posting
from tools.render import openfaas


def by_role() -> list[tuple[FunctionSpec, ...]]:
    """All functions of each database role: the largest groups that stack.yml may have."""
    roles: defaultdict[str | None, tuple[FunctionSpec, ...]] = defaultdict(tuple)
    for spec in all_specs():
        roles[spec.database_role] += (spec,)
    return list(roles.values())


def share_processes(shop: ShopHarness, groups: list[tuple[FunctionSpec, ...]]) -> None:
    """Replaces the app of each function by one that serves its whole group."""
    for members in groups:
        settings = shop.apps[members[0].name].services.settings
        app = App(members, Services(settings, source=members[0].source))
        shop.apps.update(dict.fromkeys((spec.name for spec in members), app))


@pytest.mark.parametrize("groups", [list(openfaas.grouped(all_specs()).values()), by_role()])
def test_functions_of_one_process_announce_their_events_under_their_own_names(
    flow: FlowHarness, groups: list[tuple[FunctionSpec, ...]]
) -> None:
    share_processes(flow.shop, groups)
    buyer, product = flow.shop.person(), flow.shop.product(stock=3)
    paid, cancelled = buyer.order(product), buyer.order(product)
    flow.deliver()
    assert buyer.patch(f"/orders/{cancelled['id']}/cancel").status == 200
    insert_posting(flow.shop, "CAPTURE", 10_000, "2026-02-01 00:00:00+09")
    assert flow.shop.tick("settle").status == 204

    flow.run_until_idle()

    assert (flow.outcome(paid), flow.outcome(cancelled)) == (PAID, REFUNDED)
    announced = {(row["source"], row["type"]) for row in flow.shop.outbox(undone=False)}
    assert {source for source, _ in announced} >= {"/shop/place_order", "/shop/settle"}
    assert [
        (source, name)
        for source, name in announced
        if name not in spec_of(source.removeprefix("/shop/")).emits
    ] == []
