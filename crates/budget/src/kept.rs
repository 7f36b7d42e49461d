//! The body of an answer, whose account lasts until its last byte was sent.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::Account;

/// A body with the account that its bytes are held on. Polling the body is work for that account, too. The bytes that
/// it yields keep the account: a sender may have all of them long before the peer takes them.
pub struct Kept<B> {
    body: B,
    account: Account,
}

struct Owned {
    bytes: Bytes,
    _account: Account,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

// === impl Account ===

impl Account {
    /// The same bytes, which keep the account for as long as any part of them is there.
    #[must_use]
    pub fn keep(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Owned { bytes, _account: self })
    }
}

// === impl Kept ===

impl<B> Kept<B> {
    /// Keeps the account for as long as the body, and its bytes.
    pub fn new(body: B, account: Account) -> Self {
        Self { body, account }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Kept<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let account = self.account.clone();
        let frame = ready!(account.sync_scope(|| Pin::new(&mut self.body).poll_frame(context)));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| account.keep(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;
    use crate::Budget;

    #[tokio::test]
    async fn bytes_that_were_given_away_are_held_until_they_are_dropped() {
        let budget = Budget::undivided(1 << 20);
        let account = budget.account();
        account.try_hold(3).unwrap();
        let mut body = Kept::new(Full::new(Bytes::from_static(b"abc")), account);
        let bytes = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(body.frame().await.is_none());
        drop(body);
        let part = bytes.slice(1..);
        drop(bytes);
        assert_eq!((part.as_ref(), budget.held()), (b"bc".as_slice(), 3));
        drop(part);
        assert_eq!(budget.held(), 0);
    }
}
