import json
import re
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import botocore
import pytest
from botocore.config import Config
from botocore.session import Session
from hypothesis import given
from hypothesis import strategies as st

from passthrough.bedrock.endpoints import Endpoint, Endpoints, accepts_bearer, is_region, region_of_arn, variable_of
from passthrough.bedrock.operations import Service
from passthrough.errors import Refusal, UserError

SERVICES: tuple[Service, ...] = ("bedrock-runtime", "bedrock-agent-runtime", "bedrock")
PARTITIONS = json.loads((Path(botocore.__file__).parent / "data" / "partitions.json").read_text())["partitions"]
REGIONS = {
    region: partition["outputs"]["dnsSuffix"]
    for partition in PARTITIONS
    for region in partition["regions"]
    if not region.endswith("-global")
}


@pytest.mark.parametrize("service", SERVICES)
def test_every_listed_region_of_every_partition_has_the_host_that_its_partition_says(service: Service) -> None:
    endpoints = Endpoints({})
    for region, suffix in REGIONS.items():
        host = f"{service}.{region}.{suffix}"
        assert endpoints.of(service, region) == Endpoint("https", host, 443, host)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("region", ["us-east-1", "cn-northwest-1", "us-gov-east-1", "eusc-de-east-1", "us-iso-east-1"])
def test_the_host_is_the_one_a_real_botocore_client_calls(service: Service, region: str) -> None:
    session = Session()
    session.set_credentials("AKIDEXAMPLE", "secret")
    client = session.create_client(service, region, config=Config(ignore_configured_endpoint_urls=True))
    endpoint = Endpoints({}).of(service, region)
    assert client.meta.endpoint_url == f"{endpoint.scheme}://{endpoint.host_header}"
    client.close()


def test_a_region_is_one_that_the_partitions_list() -> None:
    assert all(is_region(region) for region in REGIONS)
    for name in ("aws-global", "aws-cn-global", "us-east-99", "US-EAST-1", "us-east-1 ", "us-east-1\n", "", "bedrock"):
        assert not is_region(name), name


@pytest.mark.parametrize(
    ("arn", "region"),
    [
        ("arn:aws:bedrock:us-west-2:123456789012:inference-profile/us.anthropic.claude-v1:0", "us-west-2"),
        ("arn:aws:bedrock:eu-west-1::foundation-model/amazon.titan-embed-text-v2:0", "eu-west-1"),
        ("arn:aws:sagemaker:ap-south-1:123456789012:endpoint/mine", "ap-south-1"),
        ("arn:aws-cn:bedrock:cn-north-1:123456789012:agent/A", "cn-north-1"),
        ("arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:guardrail/g", "us-gov-west-1"),
        ("arn:aws:bedrock:us-gov-west-1:123456789012:guardrail/g", None),
        ("arn:aws:bedrock:us-east-99:123456789012:guardrail/g", None),
        ("arn:aws:bedrock:evil.example/:1:guardrail/g", None),
        ("arn:aws:bedrock:aws-global:1:guardrail/g", None),
        ("arn:aws:bedrock::123456789012:guardrail/g", None),
        ("arn:aws:bedrock:us-east-1", None),
        ("urn:aws:bedrock:us-east-1:1:x", None),
        ("anthropic.claude-3-sonnet-20240229-v1:0", None),
        ("", None),
    ],
)
def test_the_region_of_an_arn_is_read_where_the_partition_lists_it(arn: str, region: str | None) -> None:
    assert region_of_arn(arn) == region


@given(st.text())
def test_no_text_makes_the_arn_reader_fail(text: str) -> None:
    assert region_of_arn(text) is None or is_region(region_of_arn(text) or "")
    assert region_of_arn(f"arn:aws:bedrock:{text}:1:x") in (None, text)


def test_a_region_newer_than_botocore_is_served_if_it_looks_like_its_partition() -> None:
    assert Endpoints({}).of("bedrock-runtime", "eu-nowhere-7").host == "bedrock-runtime.eu-nowhere-7.amazonaws.com"
    assert Endpoints({}).of("bedrock", "cn-nowhere-7").host == "bedrock.cn-nowhere-7.amazonaws.com.cn"


BAD_REGIONS = [
    "", "aws", "us-east-1.evil.example/#", "evil.example/", "us-east-1\n", "us-east-1@evil.example", "us-éast-1",
    "us-ea_st-1", "us-east-\u0661", "US-EAST-1", "-us-east-1", f"us-{'e' * 70}-1", "us-east-1/../x",
]  # fmt: skip


@pytest.mark.parametrize("region", BAD_REGIONS)
@pytest.mark.parametrize("overrides", [{}, {"bedrock-runtime": "https://vpce.example"}])
def test_a_name_that_cannot_be_a_region_is_refused_before_it_reaches_a_host(
    region: str, overrides: dict[Service, str]
) -> None:
    with pytest.raises(Refusal) as caught:
        Endpoints(overrides).of("bedrock-runtime", region)
    assert (caught.value.status, caught.value.code) == (400, "ValidationException")
    if region:
        assert region not in caught.value.message


@given(st.text(alphabet=st.sampled_from("us-eatcngov1_./@:#?%\n\u0660é"), max_size=30))
def test_no_region_name_escapes_its_label_of_the_host(region: str) -> None:
    try:
        host = Endpoints({}).of("bedrock-runtime", region).host
    except Refusal:
        return
    assert re.fullmatch(r"bedrock-runtime\.[a-z0-9-]+\.amazonaws\.(com|com\.cn|eu)", host), host


def test_bearer_is_taken_by_the_two_services_whose_models_say_so() -> None:
    assert {service: accepts_bearer(service) for service in SERVICES} == {
        "bedrock-runtime": True,
        "bedrock-agent-runtime": False,
        "bedrock": True,
    }


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com",
         Endpoint("https", "vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com", 443,
                  "vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com")),
        ("https://Gateway.Example:8443/base/",
         Endpoint("https", "gateway.example", 8443, "gateway.example:8443", "/base")),
        ("https://gateway.example:443//", Endpoint("https", "gateway.example", 443, "gateway.example")),
        ("https://gateway.example/a%2Fb/c", Endpoint("https", "gateway.example", 443, "gateway.example", "/a%2Fb/c")),
        ("HTTPS://gateway.example:80", Endpoint("https", "gateway.example", 80, "gateway.example:80")),
        ("http://127.0.0.1:9000", Endpoint("http", "127.0.0.1", 9000, "127.0.0.1:9000")),
        ("http://127.9.9.9", Endpoint("http", "127.9.9.9", 80, "127.9.9.9")),
        ("http://localhost:80/", Endpoint("http", "localhost", 80, "localhost")),
        ("http://[::1]:9000/x", Endpoint("http", "::1", 9000, "[::1]:9000", "/x")),
        ("https://[fd00:ec2::23]", Endpoint("https", "fd00:ec2::23", 443, "[fd00:ec2::23]")),
        ("https://bedrock_standin:1", Endpoint("https", "bedrock_standin", 1, "bedrock_standin:1")),
    ],
)  # fmt: skip
def test_an_override_is_parsed_once_and_serves_every_region(url: str, endpoint: Endpoint) -> None:
    endpoints = Endpoints({"bedrock-runtime": url})
    assert endpoints.of("bedrock-runtime", "us-east-1") == endpoint
    assert endpoints.of("bedrock-runtime", "cn-north-1") is endpoints.of("bedrock-runtime", "us-east-1")
    assert endpoints.of("bedrock", "us-east-1").host == "bedrock.us-east-1.amazonaws.com"


@pytest.mark.parametrize("port", [1, 65535])
@given(address=st.ip_addresses())
def test_every_address_literal_is_dialled_bare_and_named_with_its_port(
    port: int, address: IPv4Address | IPv6Address
) -> None:
    literal = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    endpoint = Endpoints({"bedrock": f"https://{literal}:{port}"}).of("bedrock", "us-east-1")
    assert endpoint == Endpoint("https", str(address), port, f"{literal}:{port}")


BAD_URLS = {
    "ftp://x.example": "start with https://",
    "x.example:443": "start with https://",
    "//x.example": "start with https://",
    "": "start with https://",
    "https://": "not a URL",
    "https://:443": "not a URL",
    "https://x.example:": "not a URL",
    "https://x.example:0": "not a URL",
    "https://x.example:65536": "not a URL",
    "https://x.example:port": "not a URL",
    "https://[::1": "not a URL",
    "https://[::1%25eth0]": "not a URL",
    "https://[x]": "not a URL",
    "https://x .example": "not a URL",
    "https://x.example/\tpath": "not a URL",
    "https://x.example\n": "not a URL",
    "https://x.example\\@y.example": "not a URL",
    "https://é.example": "not a URL",
    "https://x..example": "not a URL",
    "https://-x.example": "not a URL",
    "https://%31.example": "not a URL",
    "https://someone@x.example": "user name or password",
    "https://someone:hunter2@x.example": "user name or password",
    "https://@x.example": "user name or password",
    "https://x.example?": "query or fragment",
    "https://x.example/?a=hunter2": "query or fragment",
    "https://x.example/#hunter2": "query or fragment",
    "https://x.example/a/../b": "dot segments",
    "https://x.example/a/%2E./b": "dot segments",
    "https://x.example/a%zz": "dot segments",
    "https://x.example/a<b": "dot segments",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_an_override_that_cannot_be_used_is_one_sentence_that_names_the_variable(url: str) -> None:
    with pytest.raises(UserError) as caught:
        Endpoints({"bedrock-agent-runtime": url}, allow_http=True)
    message = str(caught.value)
    assert "AWS_ENDPOINT_URL_BEDROCK_AGENT_RUNTIME" in message
    assert BAD_URLS[url] in message
    assert message.endswith(".")
    assert "\n" not in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1", "http://standin:8000", "http://localhost.example", "http://[::2]", "http://0.0.0.0"]
)
def test_plain_http_to_another_machine_is_refused_unless_it_was_allowed(url: str) -> None:
    with pytest.raises(UserError, match=r"AWS_ENDPOINT_URL_BEDROCK_RUNTIME .*PASSTHROUGH_ALLOW_HTTP_UPSTREAM"):
        Endpoints({"bedrock-runtime": url})
    assert Endpoints({"bedrock-runtime": url}, allow_http=True).of("bedrock-runtime", "us-east-1").scheme == "http"


def test_the_variables_are_those_of_every_aws_sdk() -> None:
    assert [variable_of(service) for service in SERVICES] == [
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
        "AWS_ENDPOINT_URL_BEDROCK_AGENT_RUNTIME",
        "AWS_ENDPOINT_URL_BEDROCK",
    ]


def test_a_region_is_resolved_once() -> None:
    endpoints = Endpoints({})
    assert endpoints.of("bedrock", "eu-west-3") is endpoints.of("bedrock", "eu-west-3")
