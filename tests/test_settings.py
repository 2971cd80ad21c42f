"""Settings: the environment first, then the file, then the default; what nobody knows is an error."""

from pathlib import Path

import pytest
from botocore.loaders import Loader
from hypothesis import given
from hypothesis import strategies as st

from passthrough.errors import UserError
from passthrough.settings import load


def file_with(text: str, folder: Path) -> Path:
    path = folder / "passthrough.toml"
    path.write_text(text)
    return path


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = load(environ={})
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 4000, 1)
    assert (settings.region, settings.region_is_a_guess) == ("us-east-1", True)
    assert (settings.max_body_bytes, settings.drain_seconds) == (64 * 1024 * 1024, 300.0)
    assert (settings.on_client_disconnect, settings.log_format) == ("drain", "json")


def test_room_for_all_bodies_is_room_for_the_largest() -> None:
    assert load(environ={}).buffered_bodies_bytes == 512 * 1024 * 1024
    environ = {"PASSTHROUGH_MAX_BODY_BYTES": "1000", "PASSTHROUGH_BUFFERED_BODIES_BYTES": "1000"}
    assert load(environ=environ).buffered_bodies_bytes == 1000
    with pytest.raises(UserError, match="PASSTHROUGH_BUFFERED_BODIES_BYTES is less than"):
        load(environ={**environ, "PASSTHROUGH_MAX_BODY_BYTES": "1001"})


def test_the_environment_comes_before_the_file_and_options_before_both(tmp_path: Path) -> None:
    path = file_with("passthrough_port = 1\npassthrough_drain_seconds = 2.5\npassthrough_workers = 3\n", tmp_path)
    settings = load(config=path, environ={"PASSTHROUGH_PORT": "2"}, options={"workers": "4", "host": None})
    assert (settings.port, settings.drain_seconds, settings.workers) == (2, 2.5, 4)


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    path = file_with('database_url = "postgresql://x/y"\npassthrough_allow_http_upstream = true\n', tmp_path)
    settings = load(environ={"PASSTHROUGH_CONFIG": str(path)})
    assert (settings.database_url, settings.allow_http_upstream) == ("postgresql://x/y", True)


@pytest.mark.parametrize(
    ("environ", "region"),
    [
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "x"}, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-2", "AWS_REGION_NAME": "x"}, "eu-west-2"),
        ({"AWS_REGION_NAME": "eu-west-3"}, "eu-west-3"),
        ({"AWS_REGION": "", "AWS_REGION_NAME": "eu-west-3"}, "eu-west-3"),
    ],
)
def test_the_first_region_that_is_set_counts(environ: dict[str, str], region: str) -> None:
    settings = load(environ=environ)
    assert (settings.region, settings.region_is_a_guess) == (region, False)


def test_litellms_names_are_understood() -> None:
    settings = load(
        environ={"LITELLM_MASTER_KEY": "sk-1234", "AWS_BEDROCK_RUNTIME_ENDPOINT": "http://127.0.0.1:1"},
    )
    assert (settings.master_key, settings.runtime_endpoint) == ("sk-1234", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"PASSTHROUGH_PROT": "1"},
            "Unknown environment variable PASSTHROUGH_PROT; the nearest known one is PASSTHROUGH_PORT.",
        ),
        ({"PASSTHROUGH_PORT": "http"}, "PASSTHROUGH_PORT takes a number from 0 to 65535; correct it or leave it out."),
        ({"PASSTHROUGH_PORT": "70000"}, "PASSTHROUGH_PORT takes a number from 0 to 65535; correct it or leave it out."),
        (
            {"PASSTHROUGH_DRAIN_SECONDS": "nan"},
            "PASSTHROUGH_DRAIN_SECONDS takes a number from 0 to 86400; correct it or leave it out.",
        ),
        (
            {"PASSTHROUGH_ON_CLIENT_DISCONNECT": "x"},
            "PASSTHROUGH_ON_CLIENT_DISCONNECT takes drain or cancel; correct it or leave it out.",
        ),
        (
            {"PASSTHROUGH_ALLOW_HTTP_UPSTREAM": "maybe"},
            "PASSTHROUGH_ALLOW_HTTP_UPSTREAM takes true or false; correct it or leave it out.",
        ),
    ],
    ids=["unknown", "no number", "too large", "nan", "no choice", "no boolean"],
)
def test_a_mistake_is_one_sentence_that_names_it(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        load(environ=environ)
    assert str(caught.value) == sentence


NEVER = {
    "PASSTHROUGH_KEY_HEADER": ("X Key", "X-Key:", "X-Schlüssel", "Content-Length", "host", " "),
    "PASSTHROUGH_MASTER_KEY": ("sk-of-a-file\n", " sk-with-blanks ", "sk-two\nlines", " "),
    "PASSTHROUGH_METRICS_TOKEN": ("of-a-file\n", " "),
    "PASSTHROUGH_HOST": (" ", "a b", "a..b", "x" * 64),
    "PASSTHROUGH_WEBHOOK_URL": (
        "hooks.example/x",
        "ftp://h/x",
        "https://",
        "http://[::1",
        "https://h:x/",
        "https://h/a b",
    ),
    "PASSTHROUGH_WEBHOOK_SECRET": (" ",),
    "PASSTHROUGH_DATA_DIR": ("~nobody-of-that-name/x", " "),
    "PASSTHROUGH_WORKERS": ("0", "-1", "many"),
    "PASSTHROUGH_PORT": ("-1",),
    "PASSTHROUGH_MAX_BODY_BYTES": ("0", "-1"),
    "PASSTHROUGH_BUFFERED_BODIES_BYTES": ("-1",),
    "PASSTHROUGH_DRAIN_SECONDS": ("-1", "inf"),
    "PASSTHROUGH_DISCONNECT_DRAINS": ("-1",),
    "PASSTHROUGH_CONNECT_SECONDS": ("0", "-1"),
    "PASSTHROUGH_ANSWER_SECONDS": ("0",),
    "PASSTHROUGH_JOURNAL_MAX_BYTES": ("-1", "5"),
    "PASSTHROUGH_JOURNAL_FSYNC_SECONDS": ("-1",),
    "PASSTHROUGH_ASSUMED_OUTPUT_TOKENS": ("0", "-5"),
    "PASSTHROUGH_BYTES_PER_TOKEN": ("0", "-1"),
    "AWS_REGION": ("Frankfurt", "eu west 1", "eu-west", "us-east-1\n"),
    "AWS_BEARER_TOKEN_BEDROCK": ("two words", "of-a-file\n"),
    "AWS_CA_BUNDLE": (" ",),
    "DATABASE_URL": (" ",),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in NEVER.items() for value in values])
def test_what_never_can_work_is_one_sentence(name: str, value: str) -> None:
    with pytest.raises(UserError) as caught:
        load(environ={name: value})
    sentence = str(caught.value)
    assert sentence.startswith(f"{name} takes ")
    assert sentence.endswith("; correct it or leave it out.")
    assert sentence.count(". ") == 0
    if name in {"PASSTHROUGH_MASTER_KEY", "PASSTHROUGH_METRICS_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"} and value.strip():
        assert value.strip() not in sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PASSTHROUGH_KEY_HEADER", "x_team.key"),
        ("PASSTHROUGH_KEY_HEADER", "Authorization"),
        ("PASSTHROUGH_MASTER_KEY", "ein Schlüssel aus drei Wörtern"),
        ("PASSTHROUGH_HOST", "::"),
        ("PASSTHROUGH_HOST", "bücher.example"),
        ("PASSTHROUGH_WEBHOOK_URL", "http://[::1]:8080/x?y=z"),
        ("AWS_REGION", "us-gov-west-1"),
        ("AWS_REGION", "eusc-de-east-1"),
        ("NO_PROXY", " "),
        ("PASSTHROUGH_BUFFERED_BODIES_BYTES", str(2**40)),
    ],
)
def test_what_can_work_is_taken(name: str, value: str) -> None:
    assert value in {str(each) for each in vars(load(environ={name: value})).values()}


def test_every_region_that_botocore_lists_is_a_region() -> None:
    partitions = Loader().load_data("partitions")["partitions"]
    regions = {region for partition in partitions for region in partition["regions"] if "global" not in region}
    assert len(regions) > 30
    for region in regions:
        assert load(environ={"AWS_REGION": region}).region == region


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("passthrough_key_header = ['X-Key']", "passthrough_key_header takes a text or a number"),
        ("passthrough_port = 2026-01-01", "passthrough_port takes a text or a number"),
        ("[passthrough_host]\na = 1", "passthrough_host takes a text or a number"),
        ("passthrough_host = ''", "passthrough_host takes an address or a host name"),
        ("aws_region = ''", "aws_region takes a region such as us-east-1"),
        ('passthrough_data_dir = "a\\u0000b"', "passthrough_data_dir takes the path of a folder"),
        ("passthrough_drain_seconds = inf", "a number from 0 to 86400"),
    ],
)
def test_what_never_can_work_is_refused_in_the_file_too(text: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=part):
        load(config=file_with(text, tmp_path), environ={})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("prices = 5", r"is no table; write \[prices\]"),
        ("price_multipliers = ['key:a']", r"is no table; write \[price_multipliers\]"),
        ("passthrough_prot = 1", "the nearest known one is passthrough_port"),
        ("passthrough_port = ", "is not valid TOML"),
        ("passthrough_config = 'x'", "Unknown name"),
    ],
)
def test_a_mistake_in_the_file_names_the_file(text: str, part: str, tmp_path: Path) -> None:
    path = file_with(text, tmp_path)
    with pytest.raises(UserError, match=part) as caught:
        load(config=path, environ={})
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load(config=tmp_path / "none.toml", environ={})


def test_no_secret_is_in_the_repr() -> None:
    secrets = {
        "PASSTHROUGH_MASTER_KEY": "sk-hidden-1",
        "DATABASE_URL": "postgresql://u:hidden-2@h/d",
        "AWS_BEARER_TOKEN_BEDROCK": "hidden-3",
        "PASSTHROUGH_METRICS_TOKEN": "hidden-4",
        "HTTPS_PROXY": "http://u:hidden-5@p:1",
    }
    assert "hidden" not in repr(load(environ=secrets))


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
def test_any_text_for_a_number_is_a_number_or_a_sentence(text: str) -> None:
    try:
        settings = load(environ={"PASSTHROUGH_PORT": text})
    except UserError:
        return
    assert 0 <= settings.port <= 65535


@pytest.mark.parametrize("name", ["aws_access_key_id", "aws_profile", "aws_role_arn", "pgpassword"])
def test_what_libraries_read_from_the_environment_has_no_place_in_the_file(name: str, tmp_path: Path) -> None:
    path = file_with(f'{name} = "anything"\n', tmp_path)
    with pytest.raises(UserError, match=f"Unknown name in .* {name}"):
        load(config=path, environ={})


def test_a_variable_of_aws_that_is_read_here_may_stand_in_the_file(tmp_path: Path) -> None:
    path = file_with('aws_region = "eu-west-1"\naws_bearer_token_bedrock = "token"\n', tmp_path)
    settings = load(config=path, environ={})
    assert (settings.region, settings.bearer) == ("eu-west-1", "token")
