"""Reads gRPC's service config from JSON, by the rules of ``grpc/service_config.proto``."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from bascule.errors import ConfigurationError, Status
from bascule.rpc._load_balancing import (
    FailurePercentageEjection,
    LoadBalancing,
    LoadReports,
    OutlierDetection,
    SuccessRateEjection,
)
from bascule.rpc._method_config import HedgingPolicy, MethodConfig, RetryPolicy, RetryThrottling
from bascule.rpc._service_config import ServiceConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

#: protobuf's JSON form of a duration.
_DURATION = re.compile(r"(-?\d{1,12}(?:\.\d{1,9})?)s")

#: The names of before ``loadBalancingConfig``.
_OLD_POLICIES = {"PICK_FIRST": "pick_first", "ROUND_ROBIN": "round_robin"}


def read_service_config(document: str | Mapping[str, Any]) -> ServiceConfig:
    """:raises ConfigurationError: naming the field, if the document is no service config"""
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except (ValueError, RecursionError) as error:
            message = f"service config: no valid JSON: {error}"
            raise ConfigurationError(message) from error
    root = _Fields(document, "")
    methods: dict[str, MethodConfig] = {}
    for each in root.list("methodConfig"):
        entry = _Fields(*each)
        config = _method_config(entry)
        for item, where in entry.list("name"):
            name = _method_name(_Fields(item, where))
            if name in methods:
                _fail(where, f"{name or 'the default'} is configured twice")
            methods[name] = config
    throttling = root.child("retryThrottling")
    health = root.child("healthCheckConfig")
    return ServiceConfig(
        methods=methods,
        load_balancing=_load_balancing(root),
        retry_throttling=None if throttling is None else _throttling(throttling),
        health_check_service=None if health is None else health.text("serviceName"),
    )


class _Fields:
    """One JSON object, and where it is in the document."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict) and not hasattr(value, "keys"):
            _fail(where, f"an object is expected, not {_kind(value)}")
        self.value: Mapping[str, Any] = value
        self.where = where

    def at(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def list(self, name: str) -> list[tuple[Any, str]]:
        """The items of a list, each with its place; none if the field is absent."""
        value = self.value.get(name)
        if value is None:
            return []
        if not isinstance(value, (list, tuple)):
            _fail(self.at(name), f"a list is expected, not {_kind(value)}")
        return [(item, f"{self.at(name)}[{index}]") for index, item in enumerate(value)]

    def child(self, name: str) -> _Fields | None:
        value = self.value.get(name)
        return None if value is None else _Fields(value, self.at(name))

    def text(self, name: str) -> str | None:
        return self._typed(name, str, "a string")

    def boolean(self, name: str) -> bool | None:
        return self._typed(name, bool, "true or false")

    def seconds(self, name: str) -> float | None:
        value = self.text(name)
        if value is None:
            return None
        match = _DURATION.fullmatch(value)
        if match is None:
            _fail(self.at(name), f"{value!r} is no duration: write seconds like '1.5s'")
        return float(match[1])

    def number(self, name: str) -> float | None:
        value = self.value.get(name)
        if value is None:
            return None
        # protobuf's JSON allows numbers in strings.
        try:
            if isinstance(value, bool):
                raise TypeError
            return float(value)
        except (TypeError, ValueError, OverflowError):
            _fail(self.at(name), f"a number is expected, not {value!r}")

    def integer(self, name: str) -> int | None:
        value = self.number(name)
        if value is None:
            return None
        if not value.is_integer():
            _fail(self.at(name), f"a whole number is expected, not {self.value[name]!r}")
        return int(value)

    def statuses(self, name: str) -> frozenset[Status]:
        return frozenset(_status(item, where) for item, where in self.list(name))

    def build(self, make: Callable[..., T], **values: Any) -> T:
        """Make a settings object of the values that are there; its complaints get a place."""
        try:
            return make(**{name: value for name, value in values.items() if value is not None})
        except ConfigurationError as error:
            _fail(self.where, str(error))

    def required(self, name: str, value: T | None) -> T:
        if value is None:
            _fail(self.at(name), "the field is required")
        return value

    def _typed(self, name: str, kind: type[T], wanted: str) -> T | None:
        value = self.value.get(name)
        if value is not None and not isinstance(value, kind):
            _fail(self.at(name), f"{wanted} is expected, not {_kind(value)}")
        return value


def _fail(where: str, problem: str) -> NoReturn:
    message = f"service config: {where}: {problem}" if where else f"service config: {problem}"
    raise ConfigurationError(message)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")


def _method_name(name: _Fields) -> str:
    service, method = name.text("service") or "", name.text("method") or ""
    if method and not service:
        _fail(name.where, f"method {method!r} has no service")
    if "/" in service or "/" in method:
        _fail(name.where, "a name has no slashes: write package.Service and Method")
    return f"/{service}/{method}" if service else ""


def _method_config(entry: _Fields) -> MethodConfig:
    retry, hedging = entry.child("retryPolicy"), entry.child("hedgingPolicy")
    return entry.build(
        MethodConfig,
        timeout=_not_negative(entry, "timeout", entry.seconds("timeout")),
        wait_for_ready=entry.boolean("waitForReady"),
        retry=None if retry is None else _retry(retry),
        hedging=None if hedging is None else _hedging(hedging),
        max_request_bytes=_size(entry, "maxRequestMessageBytes"),
        max_response_bytes=_size(entry, "maxResponseMessageBytes"),
    )


def _size(entry: _Fields, name: str) -> int | None:
    return _not_negative(entry, name, entry.integer(name))


def _not_negative(entry: _Fields, name: str, value: T | None) -> T | None:
    if isinstance(value, (int, float)) and value < 0:
        _fail(entry.at(name), f"{value} is negative")
    return value


def _attempts(policy: _Fields) -> int:
    most = policy.required("maxAttempts", policy.integer("maxAttempts"))
    if most < 2:
        _fail(policy.at("maxAttempts"), f"{most} attempts are no retries: give 2 or more")
    return most


def _retry(policy: _Fields) -> RetryPolicy:
    def positive(name: str, value: float | None) -> float:
        given = policy.required(name, value)
        if not given > 0:
            _fail(policy.at(name), f"{given:g} is not above 0")
        return given

    statuses = policy.statuses("retryableStatusCodes")
    if not statuses:
        _fail(policy.at("retryableStatusCodes"), "at least one status is required")
    return policy.build(
        RetryPolicy,
        max_attempts=_attempts(policy),
        initial_backoff=positive("initialBackoff", policy.seconds("initialBackoff")),
        max_backoff=positive("maxBackoff", policy.seconds("maxBackoff")),
        backoff_multiplier=positive("backoffMultiplier", policy.number("backoffMultiplier")),
        retryable_statuses=statuses,
        per_attempt_timeout=policy.seconds("perAttemptRecvTimeout"),
    )


def _hedging(policy: _Fields) -> HedgingPolicy:
    delay = policy.seconds("hedgingDelay")
    return policy.build(
        HedgingPolicy,
        max_attempts=_attempts(policy),
        hedging_delay=_not_negative(policy, "hedgingDelay", delay),
        non_fatal_statuses=policy.statuses("nonFatalStatusCodes"),
    )


def _throttling(entry: _Fields) -> RetryThrottling:
    return entry.build(
        RetryThrottling,
        max_tokens=entry.required("maxTokens", entry.number("maxTokens")),
        token_ratio=entry.required("tokenRatio", entry.number("tokenRatio")),
    )


def _status(value: Any, where: str) -> Status:
    try:
        status = Status[value] if isinstance(value, str) else Status(value)
    except (KeyError, ValueError):
        _fail(where, f"{value!r} is no gRPC status")
    if isinstance(value, (bool, float)):
        _fail(where, f"{value!r} is no gRPC status")
    if status is Status.OK:
        _fail(where, "OK is no failure")
    return status


def _load_balancing(root: _Fields) -> LoadBalancing | None:
    """The first policy of the list that is known; gRFC A21 demands that one is."""
    entries = root.list("loadBalancingConfig")
    if not entries:
        old = root.text("loadBalancingPolicy")
        if not old or old == "UNSPECIFIED":
            return None
        if old.upper() not in _OLD_POLICIES:
            _fail("loadBalancingPolicy", f"{old!r} is unknown: use loadBalancingConfig")
        return LoadBalancing(balancer=_OLD_POLICIES[old.upper()])
    return _first_known(entries, "loadBalancingConfig")


def _first_known(entries: list[tuple[Any, str]], where: str) -> LoadBalancing:
    names = []
    for item, place in entries:
        entry = _Fields(item, place)
        if len(entry.value) != 1:
            _fail(place, f"one policy is expected, not {len(entry.value)}")
        (name,) = entry.value
        settings = entry.child(name) or _Fields({}, entry.at(name))
        plain = name.removesuffix("_experimental")
        if plain == "outlier_detection":
            return _outlier_detection(settings)
        if plain in LoadBalancing.BALANCERS:
            return _policy(plain, settings)
        names.append(name)
    _fail(
        where, f"none of {names} is known: {', '.join(LoadBalancing.BALANCERS)}, outlier_detection"
    )


def _policy(name: str, settings: _Fields) -> LoadBalancing:
    rings = settings.integer("minRingSize"), settings.integer("maxRingSize")
    return settings.build(
        LoadBalancing,
        balancer=name,
        shuffle=settings.boolean("shuffleAddressList"),
        hash_header=settings.text("requestHashHeader"),
        ring_size=None if rings == (None, None) else (rings[0] or 1024, rings[1] or 4096),
        table_size=settings.integer("tableSize"),
        load_reports=_load_reports(settings) if name == "weighted_round_robin" else None,
    )


def _load_reports(settings: _Fields) -> LoadReports:
    return settings.build(
        LoadReports,
        blackout_period=settings.seconds("blackoutPeriod"),
        weight_expiration_period=settings.seconds("weightExpirationPeriod"),
        weight_update_period=settings.seconds("weightUpdatePeriod"),
        error_utilization_penalty=settings.number("errorUtilizationPenalty"),
    )


def _outlier_detection(settings: _Fields) -> LoadBalancing:
    """Of gRFC A50: the policy wraps another one."""
    children = settings.list("childPolicy")
    if not children:
        _fail(settings.at("childPolicy"), "at least one policy is required")
    child = _first_known(children, settings.at("childPolicy"))
    rate = settings.child("successRateEjection")
    failure = settings.child("failurePercentageEjection")
    outlier = settings.build(
        OutlierDetection,
        interval=settings.seconds("interval"),
        base_ejection_time=settings.seconds("baseEjectionTime"),
        max_ejection_time=settings.seconds("maxEjectionTime"),
        max_ejection_percent=settings.integer("maxEjectionPercent"),
        success_rate=None
        if rate is None
        else rate.build(
            SuccessRateEjection, stdev_factor=rate.integer("stdevFactor"), **_rule(rate)
        ),
        failure_percentage=None
        if failure is None
        else failure.build(
            FailurePercentageEjection, threshold=failure.integer("threshold"), **_rule(failure)
        ),
    )
    return replace(child, outlier=outlier)


def _rule(rule: _Fields) -> dict[str, int | None]:
    """What both rules have."""
    return {
        "enforcement_percentage": rule.integer("enforcementPercentage"),
        "minimum_hosts": rule.integer("minimumHosts"),
        "request_volume": rule.integer("requestVolume"),
    }
