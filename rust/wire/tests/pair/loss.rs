//! Connections that break, at any byte.

use crate::Stage;

/// Runs one call of each kind over a connection that breaks after so many
/// bytes in each direction. Answers how many were moved.
fn run(most_to_server: usize, most_to_client: usize) -> (usize, usize) {
    let mut stage = Stage::new();
    let calls = stage.start_all_kinds();
    let (mut to_server, mut to_client) = (0, 0);
    loop {
        stage.react();
        stage.pair.collect();
        stage.react();
        let here = stage.pair.to_server.len().min(most_to_server - to_server);
        let there = stage.pair.to_client.len().min(most_to_client - to_client);
        if here == 0 && there == 0 {
            break;
        }
        stage.pair.deliver_to_server(here);
        stage.pair.deliver_to_client(there);
        to_server += here;
        to_client += there;
    }
    stage.pair.server.handle_eof(stage.pair.now);
    stage.pair.client.handle_eof(stage.pair.now);
    stage.react();
    stage.pair.collect();
    stage.react();

    let place = format!("after {to_server} and {to_client} bytes");
    let Stage {
        pair,
        application,
        caller,
    } = stage;
    assert!(
        pair.client.is_finished() && pair.server.is_finished(),
        "{place}"
    );
    assert_eq!((caller.closed, application.closed), (1, 1), "{place}");
    assert_eq!(
        caller.ended.len(),
        calls.len(),
        "each call ends once, {place}"
    );
    assert!(
        application.running.is_empty(),
        "no handler is left, {place}"
    );
    assert_eq!(
        (pair.client.in_flight(), pair.server.in_flight()),
        (0, 0),
        "{place}"
    );
    for (call, status) in &caller.ended {
        let expected = if *call == calls[2] { 5 } else { 0 };
        assert!(
            *status == expected || *status == 14,
            "call {call} ended {status}, {place}"
        );
    }
    (to_server, to_client)
}

#[test]
fn a_connection_lost_at_any_byte_ends_every_call_once() {
    let (to_server, to_client) = run(usize::MAX, usize::MAX);
    for cut in 0..=to_server {
        run(cut, usize::MAX);
        run(cut, cut);
    }
    for cut in 0..=to_client {
        run(usize::MAX, cut);
    }
}
