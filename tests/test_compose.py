"""compose.yaml, the Dockerfile and the settings speak of the same things."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub.config import Settings

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_it_has_every_part_of_a_production_hub(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"migrate", "web", "worker", "nginx", "redis", "postgres"}


def test_every_setting_in_it_exists(compose: dict[str, Any]) -> None:
    known = {f"HUB_{name.upper()}" for name in Settings.model_fields}
    for service in compose["services"].values():
        used = {name for name in service.get("environment", {}) if name.startswith("HUB_")}
        assert used <= known


def test_redis_keeps_its_messages_and_evicts_none(compose: dict[str, Any]) -> None:
    command = " ".join(compose["services"]["redis"]["command"])
    assert "--appendonly yes" in command
    assert "noeviction" in command


def test_only_nginx_is_published_and_it_serves_the_blobs(compose: dict[str, Any]) -> None:
    published = [name for name, service in compose["services"].items() if "ports" in service]
    assert published == ["nginx"]
    location = compose["services"]["web"]["environment"]["HUB_X_ACCEL"]
    nginx = (ROOT / "deploy" / "nginx.conf").read_text()
    block = re.search(rf"location {location} {{(.*?)}}", nginx, re.S)
    assert block
    assert "internal;" in block[1]
    assert "/data/blobs/" in block[1]


def test_the_image_holds_what_the_code_looks_for() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {"hub", "workers", "plugins", "templates", "samples"} & set(ignored)
