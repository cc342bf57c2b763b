"""Many calls of one channel fail and succeed in any order: retries follow gRFC A6's model."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, multiple, rule
from tests.models.retry import RetryModel, ThrottleModel

from bascule.rpc import Attempts, RetryPolicy, RetryThrottling, Status
from bascule.rpc._retry import Failure, Retrying

POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(2, 7),
    initial_backoff=st.floats(0.001, 10),
    max_backoff=st.floats(0.001, 10),
    backoff_multiplier=st.floats(0.5, 4),
    retryable_statuses=st.frozensets(st.sampled_from(list(Status)[1:]), min_size=1, max_size=4),
)


class ThrottlingMachine(RuleBasedStateMachine):
    calls = Bundle("calls")

    @initialize(
        most=st.integers(1, 1000).map(float),
        ratio=st.integers(10, 30_000).map(lambda n: n / 10_000),
    )
    def build(self, most, ratio) -> None:
        settings = RetryThrottling(most, ratio)
        self.real = Attempts(settings)
        self.model = ThrottleModel(settings)

    @rule(target=calls, policy=POLICIES, at=st.floats(0, 1))
    def begin(self, policy, at):
        def uniform(low, high):
            return low + (high - low) * at

        call = Retrying(policy, self.real, uniform)
        assert call.begin() == 0
        return call, RetryModel(policy, self.model)

    @rule(
        target=calls,
        call=consumes(calls),
        status=st.sampled_from(list(Status)[1:]),
        pushback=st.none() | st.integers(-2, 5000),
        timed_out=st.booleans(),
    )
    def fail(self, call, status, pushback, timed_out):
        real, model = call
        failure = Failure(status.value, None, timed_out=timed_out)
        failure.pushback = None if pushback is None else str(pushback)
        wait, bounds = real.after(failure), model.after(status, pushback, timed_out)
        assert (wait is None) == (bounds is None)
        if wait is None:
            return multiple()
        assert bounds[0] * 0.999 <= wait <= bounds[1] * 1.001
        assert real.begin() == model.attempts
        return call

    @rule()
    def succeed(self) -> None:
        self.real.succeeded()
        self.model.succeeded()

    def teardown(self) -> None:
        if hasattr(self, "real"):
            assert self.real.tokens == float(self.model.count)
            assert self.real.allowed != self.model.retries_are_off


TestThrottling = ThrottlingMachine.TestCase
