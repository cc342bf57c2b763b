//! How a dead server is found, and what servers say about being pinged.

use super::{ClientConnection, State};
use crate::keepalive::{Care, TOO_MANY_PINGS, ping};
use h2::Reason;

impl ClientConnection {
    /// Pings a server that is quiet, and gives up one that does not answer.
    pub(super) fn look_after_server(&mut self) {
        let has_calls = self.in_flight() > 0;
        let Some(keepalive) = &mut self.keepalive else {
            return;
        };
        match keepalive.look(self.now, has_calls) {
            Care::Wait => {}
            Care::Close => {
                let error = keepalive.gave_up();
                self.close(Some(error));
            }
            Care::Ping => {
                if let (State::Open(connection), None) = (&mut self.state, &self.pings) {
                    self.pings = connection.ping_pong();
                }
                ping(self.pings.as_mut());
            }
        }
    }

    /// gRFC A8: the next connection has to ping less often.
    pub(super) fn note_refused_pings(&mut self, error: &h2::Error) {
        // h2 shows what came with a GOAWAY only as text.
        self.pings_refused |= error.is_go_away()
            && error.is_remote()
            && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
            && error.to_string().contains(TOO_MANY_PINGS);
    }
}
