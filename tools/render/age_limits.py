"""Renders the alert rules of the age limits: one for each status that is not final."""

from __future__ import annotations

from pathlib import Path

from shop.schema.age_limits import AGE_LIMITS, AgeLimit
from tools.render.dashboards import runbook_url
from tools.render.documents import yaml_text

PATH = Path("infra/observability/alerts/age-limits.yaml")


def alert_rules() -> str:
    """The rules file; the rules are about ``shop_overdue`` of the exporter."""
    rules = [_rule(limit) for limit in AGE_LIMITS]
    return yaml_text({"groups": [{"name": "shop-age-limits", "rules": rules}]})


def _rule(limit: AgeLimit) -> dict[str, object]:
    return {
        "alert": limit.rule,
        "expr": f'max(shop_overdue{{kind="{limit.alert_kind}"}}) > 0',
        "for": "1m",
        "labels": {"severity": limit.severity},
        "annotations": {
            "summary": f"{{{{ $value }}}} {limit.summary}",
            "runbook_url": runbook_url(limit.rule),
        },
    }


def render() -> dict[Path, str]:
    """The file, by path from the repository's root."""
    return {PATH: alert_rules()}
