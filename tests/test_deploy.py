"""What `deploy/` says of the program, held to the program."""

import re
from pathlib import Path

from passthrough.settings import Settings, variable_names

ROOT = Path(__file__).parents[1]
COMPOSE = (ROOT / "deploy" / "compose.yaml").read_text()
README = (ROOT / "README.md").read_text()


def test_no_password_stands_in_a_url_of_the_compose_file() -> None:
    urls = re.findall(r"\S+://\S+", COMPOSE)
    assert any(url.startswith("postgresql://") for url in urls)
    assert not any("$" in url for url in urls)


def test_the_compose_file_sets_nothing_that_the_program_does_not_know() -> None:
    service = COMPOSE.partition("\n  passthrough:\n")[2]
    named = set(re.findall(r"^      ([A-Z_]+): ", service, re.MULTILINE))
    of_libraries = {"PGPASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    assert named >= {"DATABASE_URL", "PASSTHROUGH_MASTER_KEY", "AWS_BEARER_TOKEN_BEDROCK"}
    assert named <= variable_names() | of_libraries


def test_plain_http_is_published_to_the_machine_itself_unless_told_otherwise() -> None:
    (published,) = re.findall(r"ports: \[\"(.+)\"\]", COMPOSE)
    assert published == f"${{PUBLISH_ADDRESS:-127.0.0.1}}:{Settings.port}:{Settings.port}"
    assert "`PUBLISH_ADDRESS`" in README


def test_the_container_is_killed_fifteen_seconds_after_the_drain() -> None:
    (seconds,) = re.findall(r"stop_grace_period: (\d+)s", COMPOSE)
    assert int(seconds) == Settings.drain_seconds + 15


def test_the_readme_tells_what_the_compose_file_requires() -> None:
    required = set(re.findall(r"\$\{([A-Z_]+):\?", COMPOSE))
    assert required == {"POSTGRES_PASSWORD", "PASSTHROUGH_MASTER_KEY"}
    for name in required:
        assert f"export {name}=" in README
