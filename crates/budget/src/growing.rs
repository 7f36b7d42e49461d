//! Memory that grows by itself, such as that of a message which comes in pieces.

use bytes::Bytes;

use crate::{Account, Exhausted, SMALL};

/// Holds what grows once it is not small any more: as much as a buffer takes that doubles.
#[derive(Debug)]
pub struct Growing {
    of: Option<Account>,
    account: Option<Account>,
}

// === impl Growing ===

impl Growing {
    /// Holds on accounts like this one; `None` holds nothing.
    pub fn new(of: Option<Account>) -> Self {
        Self { of, account: None }
    }

    /// Holds so many bytes in all.
    ///
    /// # Errors
    /// [`Exhausted`] when they cannot be held: they have to be dropped. Nothing is held of them then.
    pub async fn hold(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let Some(of) = self.of.as_ref().filter(|_| bytes > SMALL) else { return Ok(()) };
        let account = self.account.get_or_insert_with(|| of.another());
        let held = account.hold(bytes.next_power_of_two().saturating_sub(account.held())).await;
        if held.is_err() {
            self.account = None;
        }
        held
    }

    /// The account of what has grown, if it was held; what comes next is held on another.
    pub fn take(&mut self) -> Option<Account> {
        self.account.take()
    }

    /// The bytes that it has become, held for as long as any part of them is there.
    pub fn keep(&mut self, bytes: Bytes) -> Bytes {
        match self.take() {
            Some(account) => account.keep(bytes),
            None => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Budget;

    #[tokio::test]
    async fn what_is_small_is_not_held_and_what_has_grown_is_until_it_is_dropped() {
        let budget = Budget::undivided(1 << 20);
        let mut growing = Growing::new(Some(budget.account()));
        growing.hold(SMALL).await.unwrap();
        assert_eq!(budget.held(), 0);
        growing.hold(SMALL + 1).await.unwrap();
        growing.hold(2 * SMALL).await.unwrap();
        assert_eq!(budget.held(), 2 * SMALL);
        let bytes = growing.keep(Bytes::from_static(b"abc"));
        growing.hold(SMALL).await.unwrap();
        assert_eq!(budget.held(), 2 * SMALL);
        drop(bytes);
        assert_eq!(budget.held(), 0);
        growing.hold(512 << 10).await.unwrap();
        assert_eq!(growing.hold(2 << 20).await, Err(Exhausted::Project(1 << 20)));
        assert_eq!(budget.held(), 0);
    }
}
