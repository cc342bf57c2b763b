"""gRPC's service config: what is read, what holds for a method, and what a bad value is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bascule.errors import ConfigurationError, Status
from bascule.rpc import (
    FailurePercentageEjection,
    HedgingPolicy,
    LoadBalancing,
    MethodConfig,
    OutlierDetection,
    RetryPolicy,
    RetryThrottling,
    ServiceConfig,
)

FULL = """{
  "loadBalancingConfig": [{"unheard_of": {"x": 1}}, {"round_robin": {}}, {"pick_first": {}}],
  "methodConfig": [
    {
      "name": [{"service": "a.B", "method": "C"}, {"service": "a.D"}],
      "waitForReady": true,
      "timeout": "1.500s",
      "maxRequestMessageBytes": "1024",
      "maxResponseMessageBytes": 2048,
      "retryPolicy": {
        "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s",
        "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE", 10],
        "perAttemptRecvTimeout": "0.25s"
      }
    },
    {
      "name": [{"service": "a.B"}],
      "hedgingPolicy": {"maxAttempts": 9, "hedgingDelay": "0.5s", "nonFatalStatusCodes": ["INTERNAL"]}
    },
    {"name": [{}], "timeout": "9s"}
  ],
  "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
  "healthCheckConfig": {"serviceName": "a.B"},
  "fieldOfTheFuture": []
}"""


def test_every_field_is_read() -> None:
    retry = RetryPolicy(
        4, 0.1, 1.0, 2.0, frozenset({Status.UNAVAILABLE, Status.ABORTED}), per_attempt_timeout=0.25
    )
    long = MethodConfig(1.5, True, retry, None, 1024, 2048)
    hedged = MethodConfig(hedging=HedgingPolicy(5, 0.5, frozenset({Status.INTERNAL})))
    assert ServiceConfig.from_json(FULL) == ServiceConfig(
        methods={"/a.B/C": long, "/a.D/": long, "/a.B/": hedged, "": MethodConfig(9.0)},
        load_balancing=LoadBalancing(balancer="round_robin"),
        retry_throttling=RetryThrottling(10, 0.1),
        health_check_service="a.B",
    )
    assert ServiceConfig.from_json(json.loads(FULL)) == ServiceConfig.from_json(FULL)


def test_the_longest_name_holds_alone() -> None:
    config = ServiceConfig.from_json(FULL)
    exact = config.method("/a.B/C")
    assert exact is not None
    assert exact.retry is not None
    of_service = config.method("/a.B/Other")
    assert of_service is not None
    assert (of_service.timeout, of_service.hedging is not None) == (None, True)
    assert config.method("/x.Y/Z") == MethodConfig(9.0)
    assert ServiceConfig().method("/a.B/C") is None
    assert ServiceConfig(methods={"/a.B/": MethodConfig(1.0)}).method("/a.BC/D") is None


def test_a_hedge_may_take_every_failure_as_the_answer() -> None:
    config = {"methodConfig": [{"name": [{}], "hedgingPolicy": {"maxAttempts": 2}}]}
    assert ServiceConfig.from_json(config).method("/a/b") == MethodConfig(
        hedging=HedgingPolicy(2, 0.0, frozenset())
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"loadBalancingPolicy": "round_robin"}, LoadBalancing(balancer="round_robin")),
        ({"loadBalancingPolicy": "PICK_FIRST"}, LoadBalancing(balancer="pick_first")),
        ({"loadBalancingPolicy": "UNSPECIFIED"}, None),
        ({"loadBalancingConfig": []}, None),
        (
            {"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": True}}]},
            LoadBalancing(balancer="pick_first", shuffle=True),
        ),
        (
            {
                "loadBalancingConfig": [
                    {"ring_hash_experimental": {"minRingSize": 8, "requestHashHeader": "x-user"}}
                ]
            },
            LoadBalancing(balancer="ring_hash", ring_size=(8, 4096), hash_header="x-user"),
        ),
        (
            {
                "loadBalancingConfig": [
                    {
                        "outlier_detection": {
                            "interval": "5s",
                            "failurePercentageEjection": {"minimumHosts": 3},
                            "childPolicy": [{"least_request": {}}],
                        }
                    }
                ]
            },
            LoadBalancing(
                balancer="least_request",
                outlier=OutlierDetection(
                    interval=5.0,
                    failure_percentage=FailurePercentageEjection(minimum_hosts=3),
                ),
            ),
        ),
    ],
)
def test_the_first_known_balancer_is_taken(config, expected) -> None:
    assert ServiceConfig.from_json(config).load_balancing == expected


def method(**fields):
    return {"methodConfig": [{"name": [{}]} | fields]}


RETRY = {
    "maxAttempts": 3,
    "initialBackoff": "1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": [14],
}


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ("{", "no valid JSON"),
        ("[" * 200_000, "no valid JSON"),
        ("[]", "object"),
        ({"methodConfig": {}}, "methodConfig: a list"),
        ({"methodConfig": ["x"]}, r"methodConfig\[0\]: an object"),
        (method(name=[{"method": "M"}]), r"methodConfig\[0\].name\[0\]: method 'M' has no service"),
        (method(name=[{"service": 1}]), r"name\[0\].service: a string"),
        (method(name=[{"service": "/a"}]), r"name\[0\]: a name has no slashes"),
        (method(name=[{}, {}]), r"name\[1\]: the default is configured twice"),
        (method(timeout="1"), r"methodConfig\[0\].timeout: '1' is no duration"),
        (method(timeout=1), r"timeout: a string"),
        (method(timeout="-1s"), r"timeout: -1.0 is negative"),
        (method(timeout="1e3s"), r"timeout: '1e3s'"),
        (method(waitForReady="yes"), r"waitForReady: true or false"),
        (method(maxRequestMessageBytes=1.5), r"maxRequestMessageBytes: a whole number"),
        (method(maxResponseMessageBytes=-1), r"maxResponseMessageBytes: -1 is negative"),
        (method(maxResponseMessageBytes=True), r"maxResponseMessageBytes: a number"),
        (method(maxResponseMessageBytes="nan"), r"maxResponseMessageBytes: a whole number"),
        (method(maxResponseMessageBytes=10**400), r"maxResponseMessageBytes: a number"),
        (method(retryPolicy=RETRY | {"maxAttempts": 1}), "retryPolicy.maxAttempts: 1"),
        (method(retryPolicy=RETRY | {"maxAttempts": None}), "maxAttempts: the field is required"),
        (method(retryPolicy=RETRY | {"initialBackoff": "0s"}), "initialBackoff: 0 is not above 0"),
        (method(retryPolicy=RETRY | {"maxBackoff": None}), "maxBackoff: the field is required"),
        (method(retryPolicy=RETRY | {"backoffMultiplier": "x"}), "backoffMultiplier: a number"),
        (method(retryPolicy=RETRY | {"backoffMultiplier": "nan"}), "backoffMultiplier: nan"),
        (
            method(retryPolicy=RETRY | {"retryableStatusCodes": []}),
            "retryableStatusCodes: at least",
        ),
        (
            method(retryPolicy=RETRY | {"retryableStatusCodes": [17]}),
            r"retryableStatusCodes\[0\]: 17",
        ),
        (method(retryPolicy=RETRY | {"retryableStatusCodes": [0]}), r"\[0\]: OK is no failure"),
        (method(retryPolicy=RETRY | {"retryableStatusCodes": [[]]}), r"\[0\]: \[\] is no gRPC"),
        (method(retryPolicy=RETRY | {"retryableStatusCodes": ["NO"]}), r"\[0\]: 'NO' is no gRPC"),
        (method(retryPolicy=RETRY, hedgingPolicy={"maxAttempts": 2}), r"methodConfig\[0\]: .*both"),
        (method(hedgingPolicy={}), "hedgingPolicy.maxAttempts: the field is required"),
        (
            method(hedgingPolicy={"maxAttempts": 2, "hedgingDelay": "-1s"}),
            "hedgingPolicy.hedgingDelay: -1.0 is negative",
        ),
        ({"retryThrottling": {"maxTokens": 10}}, "retryThrottling.tokenRatio: the field"),
        ({"retryThrottling": {"maxTokens": 1001, "tokenRatio": 1}}, "retryThrottling: .*1001"),
        ({"loadBalancingPolicy": "grpclb"}, "loadBalancingPolicy: 'grpclb' is unknown"),
        ({"loadBalancingConfig": [{"grpclb": {}}]}, r"loadBalancingConfig: none of \['grpclb'\]"),
        ({"loadBalancingConfig": [{}]}, r"loadBalancingConfig\[0\]: one policy"),
        (
            {"loadBalancingConfig": [{"ring_hash": {"minRingSize": 9, "maxRingSize": 8}}]},
            r"loadBalancingConfig\[0\].ring_hash: ring_size",
        ),
        (
            {"loadBalancingConfig": [{"outlier_detection": {}}]},
            r"\[0\].outlier_detection.childPolicy: at least one",
        ),
        ({"healthCheckConfig": {"serviceName": 7}}, "healthCheckConfig.serviceName: a string"),
    ],
)
def test_a_bad_value_is_refused_with_its_place(config, field) -> None:
    with pytest.raises(ConfigurationError, match=f"service config: .*{field}"):
        ServiceConfig.from_json(config)


def test_a_service_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="surrogates"):
        ServiceConfig.from_json('{"healthCheckConfig": {"serviceName": "a\\ud800"}}')


@pytest.mark.parametrize("key", ["a.B/C", "/a.B", "//C", "/a/b/c"])
def test_a_key_that_could_match_nothing_is_refused(key) -> None:
    with pytest.raises(ConfigurationError, match=key):
        ServiceConfig(methods={key: MethodConfig()})


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "methodConfig",
                    "name",
                    "service",
                    "method",
                    "timeout",
                    "waitForReady",
                    "retryPolicy",
                    "hedgingPolicy",
                    "maxAttempts",
                    "initialBackoff",
                    "maxBackoff",
                    "backoffMultiplier",
                    "retryableStatusCodes",
                    "round_robin",
                    "retryThrottling",
                    "maxTokens",
                    "tokenRatio",
                    "loadBalancingConfig",
                    "healthCheckConfig",
                    "ring_hash",
                    "childPolicy",
                    "outlier_detection",
                    "successRateEjection",
                    "interval",
                    "minRingSize",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_a_config_or_a_configuration_error(document) -> None:
    text = json.dumps(document)
    try:
        config = ServiceConfig.from_json(text)
    except ConfigurationError as error:
        assert str(error).startswith("service config: ")  # noqa: PT017
    else:
        config.method("/a.B/C")
