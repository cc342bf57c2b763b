//! Pings, ages and stream ids that run out, in virtual time.

use crate::{BIDI, Stage, UNARY, server_limits};
use bascule_wire::client::{ClientConnection, ClientLimits};
use bascule_wire::grpc::code;
use bascule_wire::keepalive::{AgeLimits, KeepaliveSettings, PingLimits};
use bascule_wire::server::{ServerConfig, ServerConnection, ServerLimits};
use std::sync::Arc;
use std::time::Duration;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const KEEPALIVE: KeepaliveSettings = KeepaliveSettings {
    time: s(10),
    timeout: s(3),
    without_calls: false,
};

fn pinging(keepalive: KeepaliveSettings) -> ClientLimits {
    ClientLimits {
        keepalive: Some(keepalive),
        ..ClientLimits::default()
    }
}

/// A stage whose server has this configuration, but for its methods.
fn serve(client: ClientLimits, config: ServerConfig) -> Stage {
    let mut stage = Stage::with(client, config.limits.clone());
    let config = ServerConfig {
        grpc: Some(crate::table()),
        ..config
    };
    stage.pair.server = ServerConnection::new(Arc::new(config), stage.pair.now);
    stage.settle();
    stage
}

/// Lets time pass as drivers do: the server is told every second, the client when it wants.
fn pass(stage: &mut Stage, time: Duration) {
    let end = stage.pair.now + time;
    let mut timer = stage.pair.client.poll_timeout();
    while stage.pair.now < end {
        stage.pair.now += s(1);
        let now = stage.pair.now;
        stage.pair.server.handle_timeout(now);
        if timer.is_some_and(|at| at <= now) {
            stage.pair.client.handle_timeout(now);
            timer = stage.pair.client.poll_timeout();
        }
        stage.settle();
        if stage.pair.server.is_finished() && !stage.pair.client.is_finished() {
            stage.pair.client.handle_eof(now);
            stage.settle();
        }
    }
}

/// Lets time pass while nothing reaches anybody.
fn pass_in_the_dark(stage: &mut Stage, time: Duration) {
    let end = stage.pair.now + time;
    let mut timer = stage.pair.client.poll_timeout();
    while stage.pair.now < end {
        stage.pair.now += s(1);
        let now = stage.pair.now;
        stage.pair.server.handle_timeout(now);
        if timer.is_some_and(|at| at <= now) {
            stage.pair.client.handle_timeout(now);
            timer = stage.pair.client.poll_timeout();
        }
        stage.react();
        stage.pair.collect();
        stage.react();
        stage.pair.to_server.clear();
        stage.pair.to_client.clear();
    }
}

#[test]
fn a_server_that_is_gone_costs_a_call_no_more_than_both_times() {
    let mut stage = serve(pinging(KEEPALIVE), ServerConfig::default());
    let call = stage.pair.start(BIDI, None, false);
    stage.settle();
    pass_in_the_dark(&mut stage, s(12));
    assert!(stage.caller.ended.is_empty());
    pass_in_the_dark(&mut stage, s(1));
    assert_eq!(stage.caller.ended[&call], code::UNAVAILABLE);
    assert_eq!(stage.caller.closed, 1);
    assert!(stage.pair.client.is_finished());
    assert_eq!(stage.pair.client.poll_timeout(), None);
}

#[test]
fn a_server_that_answers_is_kept() {
    let config = ServerConfig {
        pings: Some(PingLimits {
            min_interval: s(5),
            ..PingLimits::default()
        }),
        ..ServerConfig::default()
    };
    let mut stage = serve(pinging(KEEPALIVE), config);
    stage.pair.start(BIDI, None, false);
    stage.settle();
    pass(&mut stage, s(290));
    assert_eq!((stage.caller.closed, stage.application.closed), (0, 0));
}

#[test]
fn without_calls_nobody_is_pinged_unless_it_is_wanted() {
    for without_calls in [false, true] {
        let settings = KeepaliveSettings {
            without_calls,
            ..KEEPALIVE
        };
        let mut stage = serve(pinging(settings), ServerConfig::default());
        pass_in_the_dark(&mut stage, s(100));
        assert_eq!(stage.caller.closed, usize::from(without_calls));
    }
}

#[test]
fn a_client_that_is_gone_loses_its_calls() {
    let config = ServerConfig {
        keepalive: Some(KEEPALIVE),
        ..ServerConfig::default()
    };
    let mut stage = serve(ClientLimits::default(), config);
    stage.pair.start(BIDI, None, false);
    stage.settle();
    pass(&mut stage, s(60));
    assert_eq!(stage.application.running.len(), 1);
    pass_in_the_dark(&mut stage, s(14));
    assert!(stage.application.running.is_empty());
    assert_eq!(stage.application.closed, 1);
}

fn strict() -> ServerConfig {
    ServerConfig {
        pings: Some(PingLimits::default()),
        ..ServerConfig::default()
    }
}

#[test]
fn a_client_that_pings_too_often_is_told_and_cut_off() {
    let mut stage = serve(pinging(KEEPALIVE), strict());
    let call = stage.pair.start(BIDI, None, false);
    stage.settle();
    // The first is free, two are early, the fourth is one too many.
    pass(&mut stage, s(39));
    assert!(stage.caller.ended.is_empty());
    pass(&mut stage, s(2));
    assert_eq!(stage.caller.ended[&call], code::UNAVAILABLE);
    assert!(stage.pair.client.pings_refused());
    assert!(stage.application.running.is_empty());
}

#[test]
fn a_client_that_gets_answers_may_ping_as_often_as_it_likes() {
    let mut stage = serve(pinging(KEEPALIVE), strict());
    stage.pair.start(BIDI, None, false);
    for _ in 0..10 {
        stage.pair.start(UNARY, Some(b"x"), true);
        stage.settle();
        pass(&mut stage, s(25));
    }
    assert_eq!((stage.caller.closed, stage.application.closed), (0, 0));
    assert!(!stage.pair.client.pings_refused());
}

#[test]
fn an_old_connection_takes_no_new_calls_and_ends_with_its_last_one() {
    let mut stage = aging(s(1000), s(300));
    let call = stage.pair.start(BIDI, None, false);
    stage.settle();
    pass(&mut stage, s(898));
    assert_eq!(stage.caller.draining, 0);
    pass(&mut stage, s(210));
    assert_eq!(stage.caller.draining, 1);
    assert!(stage.caller.ended.is_empty());
    stage.pair.client.end(call);
    stage.settle();
    assert_eq!(stage.caller.ended[&call], code::OK);
    assert_eq!((stage.caller.closed, stage.application.closed), (1, 1));
}

#[test]
fn what_has_not_ended_after_the_grace_is_cancelled() {
    let mut stage = aging(s(1000), s(30));
    let call = stage.pair.start(BIDI, None, false);
    stage.settle();
    pass(&mut stage, s(1000 + 100 + 31));
    assert_eq!(stage.caller.ended[&call], code::UNAVAILABLE);
    assert!(stage.application.running.is_empty());
    assert_eq!((stage.caller.closed, stage.application.closed), (1, 1));
}

fn aging(max_age: Duration, grace: Duration) -> Stage {
    let config = ServerConfig {
        age: Some(AgeLimits {
            max_age,
            grace,
            made: Arc::default(),
        }),
        limits: ServerLimits {
            idle_timeout: s(10_000),
            stream_idle_timeout: s(10_000),
            ..server_limits()
        },
        ..ServerConfig::default()
    };
    serve(ClientLimits::default(), config)
}

#[test]
fn a_connection_whose_stream_ids_run_out_is_replaced() {
    for of_server in [false, true] {
        let client = ClientLimits {
            last_stream: if of_server { u32::MAX } else { 5 },
            ..ClientLimits::default()
        };
        let server = ServerLimits {
            last_stream: if of_server { 5 } else { u32::MAX },
            ..server_limits()
        };
        let mut stage = Stage::with(client, server);
        let calls: Vec<u32> = (0..3)
            .map(|_| {
                let call = stage.pair.start(UNARY, Some(b"x"), true);
                stage.settle();
                call
            })
            .collect();
        assert_eq!(stage.caller.draining, 1);
        for call in calls {
            assert_eq!(stage.caller.ended[&call], code::OK);
        }
        assert!(stage.pair.client.is_draining());
    }
}

#[test]
fn time_without_end_does_not_overflow() {
    let forever = KeepaliveSettings {
        time: Duration::MAX,
        timeout: Duration::MAX,
        without_calls: true,
    };
    let now = s(1);
    let mut client =
        ClientConnection::new(crate::table(), pinging(forever), false, "a:1", "t", now).unwrap();
    client.handle_timeout(now);
    assert_eq!(client.poll_timeout(), Some(Duration::MAX));
    let config = ServerConfig {
        keepalive: Some(forever),
        age: Some(AgeLimits {
            max_age: Duration::MAX,
            grace: Duration::MAX,
            made: Arc::default(),
        }),
        ..ServerConfig::default()
    };
    let mut server = ServerConnection::new(Arc::new(config), now);
    server.handle_timeout(s(1_000_000));
    assert!(!server.is_finished());
}
