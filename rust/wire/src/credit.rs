//! Flow-control credit of what one stream has received.

/// Keeps credit back for messages that the application has not taken, so that
/// a slow reader stops the sender.
///
/// A message that is incomplete while the application waits for it must flow,
/// or one larger than the window would never arrive: its credit goes back on
/// receipt. Once other messages are queued, it waits its turn like them.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    /// Bytes received whose credit has not been given back.
    owed: usize,
    /// Bytes of delivered messages that the application has not taken.
    unconsumed: usize,
}

impl Credit {
    pub(crate) fn received(&mut self, size: usize) {
        self.owed += size;
    }

    pub(crate) fn delivered(&mut self, size: usize) {
        self.unconsumed += size;
    }

    pub(crate) fn consumed(&mut self, size: usize) {
        self.unconsumed = self.unconsumed.saturating_sub(size);
    }

    /// Bytes of delivered messages that the application has not taken.
    pub(crate) fn unconsumed(&self) -> usize {
        self.unconsumed
    }

    /// What to give back now; `partial` is the part that came of an incomplete message.
    pub(crate) fn settle(&mut self, partial: usize) -> usize {
        let keep = if self.unconsumed == 0 {
            0
        } else {
            self.unconsumed + partial
        };
        let back = self.owed.saturating_sub(keep);
        self.owed -= back;
        back
    }

    /// What to give back when nobody will read any more.
    pub(crate) fn abandon(&mut self) -> usize {
        self.unconsumed = 0;
        self.settle(0)
    }
}

#[cfg(test)]
mod tests {
    use super::Credit;

    #[test]
    fn a_message_larger_than_the_window_flows_and_gives_all_back() {
        let mut credit = Credit::default();
        let mut back = 0;
        for partial in [40, 80] {
            credit.received(40);
            back += credit.settle(partial);
        }
        assert_eq!(back, 80);
        credit.received(40);
        credit.delivered(100);
        assert_eq!(credit.settle(20), 0, "now the sender waits for the reader");
        credit.consumed(100);
        assert_eq!(back + credit.settle(20), 120);
    }

    #[test]
    fn a_queue_gives_back_as_it_is_read() {
        let mut credit = Credit::default();
        for _ in 0..3 {
            credit.received(10);
            credit.delivered(10);
            assert_eq!(credit.settle(0), 0);
        }
        credit.consumed(10);
        assert_eq!(credit.settle(0), 10);
        assert_eq!(credit.abandon(), 20);
        assert_eq!(credit.abandon(), 0);
    }
}
