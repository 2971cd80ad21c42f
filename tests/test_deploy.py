"""What `deploy/` says of the program, held to the program."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from passthrough.settings import Settings, variable_names

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = (DEPLOY / "compose.yaml").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
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


@pytest.mark.parametrize("name", ["constraints.txt", "build-constraints.txt"])
def test_no_registrys_host_is_named_in_the_constraints(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert "://" not in text
    assert "index" not in text


def test_every_package_of_the_image_is_pinned_with_its_hashes() -> None:
    for name, least in (("constraints.txt", 30), ("build-constraints.txt", 1)):
        packages = re.split(r"\n(?=[a-z])", (DEPLOY / name).read_text().strip())
        assert len(packages) > least
        assert all(re.match(r"[a-z0-9-]+==\S+ .*\n    --hash=sha256:[0-9a-f]{64}", package) for package in packages)


def test_the_image_installs_nothing_that_is_not_pinned() -> None:
    installs = re.findall(r"pip (?:install|wheel) .*", DOCKERFILE)
    assert len(installs) == 4
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
    assert all("--no-build-isolation" in line for line in installs if "pip wheel" in line)


def test_the_image_is_built_by_what_builds_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["dependency-groups"]["image"] == project["build-system"]["requires"]


def test_the_image_asks_for_its_health_what_the_program_has() -> None:
    (module,) = re.findall(r'HEALTHCHECK .*CMD \["python", "-m", "([a-z.]+)"\]', DOCKERFILE)
    assert importlib.util.find_spec(module) is not None
