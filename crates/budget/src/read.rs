//! Reading a whole body: bounded in bytes, in JSON values and in time, and held on the request's account.

use std::{pin::pin, time::Duration};

use bytes::{Buf, Bytes};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use crate::{Account, Exhausted, values::Values};

/// The bytes of memory that one byte of a body takes, with the form that is made of the body.
const WEIGHT: usize = 2;
/// The bytes of memory that one JSON value takes besides its text.
const VALUE: usize = 128;

/// The limits of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes.
    pub bytes: usize,
    /// The most marks of JSON (commas, colons and opening brackets outside of texts), which are as many as its values
    /// and keys; `usize::MAX` where nothing is made of them.
    pub values: usize,
}

/// The pace at which a body has to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The time that the body may take in any case.
    pub at_first: Duration,
    /// The number of received bytes that give the body one second more.
    pub bytes_a_second: usize,
}

/// The reason for which a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// The body has more bytes than these.
    #[error("it has more than {0} bytes")]
    TooLong(usize),
    /// The body has more JSON values than these.
    #[error("it has more than {0} values")]
    TooManyValues(usize),
    /// The body came too slowly.
    #[error("it came too slowly: {0} bytes until its time was up")]
    TooSlow(usize),
    /// Nothing more can be held.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The body broke off.
    #[error("it broke off")]
    Broken(#[source] E),
}

// === impl Limits ===

impl Limits {
    /// Limits for JSON of this many bytes and values.
    pub const fn json(bytes: usize, values: usize) -> Self {
        Self { bytes, values }
    }

    /// A limit of this many bytes for a body of any kind.
    pub const fn bytes(bytes: usize) -> Self {
        Self { bytes, values: usize::MAX }
    }
}

// === impl Pace ===

impl Pace {
    /// The pace that clients have to keep: half a minute, and a second more for each 64 KiB.
    pub const OF_CLIENTS: Self = Self { at_first: Duration::from_secs(30), bytes_a_second: 64 * 1024 };

    fn deadline(self, began: Instant, received: usize) -> Instant {
        let more = Duration::from_secs((received / self.bytes_a_second) as u64);
        began + self.at_first + more
    }
}

/// Reads all of a body. The memory that it takes is held on the current account, if there is one: at once where the
/// length is announced, else as it comes. Without a pace the caller bounds the time.
///
/// # Errors
/// [`ReadError`]; nothing of the body is returned then.
pub async fn read<B: Body<Data: Buf>>(
    body: B,
    limits: Limits,
    pace: Option<Pace>,
) -> Result<Bytes, ReadError<B::Error>> {
    let mut body = pin!(body);
    let account = Account::current();
    let announced = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    if body.size_hint().lower() > limits.bytes as u64 {
        return Err(ReadError::TooLong(limits.bytes));
    }
    if let Some(bytes) = announced {
        hold(account.as_ref(), WEIGHT * bytes).await?;
    }
    let began = Instant::now();
    let (mut first, mut whole) = (Bytes::new(), Vec::new());
    let mut values = Values::default();
    loop {
        let received = first.len() + whole.len();
        let frame = match pace {
            Some(pace) => timeout_at(pace.deadline(began, received), body.frame()).await,
            None => Ok(body.frame().await),
        };
        let frame = frame.map_err(|_| ReadError::TooSlow(received))?;
        let Some(frame) = frame else { break };
        let Ok(mut data) = frame.map_err(ReadError::Broken)?.into_data() else { continue };
        let data = data.copy_to_bytes(data.remaining());
        if received + data.len() > limits.bytes {
            return Err(ReadError::TooLong(limits.bytes));
        }
        if limits.values < usize::MAX && values.see(&data) > limits.values {
            return Err(ReadError::TooManyValues(limits.values));
        }
        if announced.is_none() {
            hold(account.as_ref(), WEIGHT * data.len()).await?;
        }
        // Most bodies come in one piece, which need not be copied.
        if received == 0 {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(announced.unwrap_or(received + data.len()));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&data);
    }
    hold(account.as_ref(), VALUE * values.count()).await?;
    Ok(if whole.is_empty() { first } else { whole.into() })
}

/// Holds bytes where there is an account to hold them on.
async fn hold(account: Option<&Account>, bytes: usize) -> Result<(), Exhausted> {
    match account {
        Some(account) => account.hold(bytes).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt as _, stream};
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;
    use crate::Budget;

    fn pieces(pieces: &'static [&'static str]) -> impl Body<Data = Bytes, Error = Infallible> {
        let frames = stream::iter(pieces).map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
        StreamBody::new(frames)
    }

    #[tokio::test]
    async fn a_body_is_read_however_it_is_cut() {
        for body in [["[1,2]", "", ""], ["[1", ",2", "]"], ["", "[", "1,2]"]].iter() {
            let body: &'static [&'static str] = Vec::leak(body.to_vec());
            assert_eq!(read(pieces(body), Limits::json(5, 2), None).await.unwrap(), "[1,2]");
        }
    }

    #[tokio::test]
    async fn a_body_over_a_limit_is_refused_as_soon_as_it_is_seen() {
        let endless = || StreamBody::new(stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from("0,")))));
        let long = read(endless(), Limits::json(1_001, usize::MAX), None).await;
        assert!(matches!(long, Err(ReadError::TooLong(1_001))), "{long:?}");
        let many = read(endless(), Limits::json(usize::MAX, 1_000), None).await;
        assert!(matches!(many, Err(ReadError::TooManyValues(1_000))), "{many:?}");
        let announced = read(Full::new(Bytes::from("12345")), Limits::bytes(4), None).await;
        assert!(matches!(announced, Err(ReadError::TooLong(4))), "{announced:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_too_slowly_is_given_up() {
        let pace = Pace { at_first: Duration::from_secs(30), bytes_a_second: 10 };
        let one_a = |second: u64| {
            stream::repeat(()).take(100).then(move |()| async move {
                tokio::time::sleep(Duration::from_secs(second)).await;
                Ok::<_, Infallible>(Frame::data(Bytes::from("0123456789")))
            })
        };
        let fast = read(pin!(StreamBody::new(one_a(1))), Limits::bytes(1_000), Some(pace)).await;
        assert_eq!(fast.unwrap().len(), 1_000);
        let slow = read(pin!(StreamBody::new(one_a(2))), Limits::bytes(1_000), Some(pace)).await;
        assert!(matches!(slow, Err(ReadError::TooSlow(_))), "{slow:?}");
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let silent = read(silent, Limits::bytes(1_000), Some(pace)).await;
        assert!(matches!(silent, Err(ReadError::TooSlow(0))), "{silent:?}");
    }

    #[tokio::test]
    async fn what_is_read_is_held_until_the_request_ends() {
        let budget = Budget::undivided(1 << 20);
        let account = budget.account();
        let work = read(pieces(&["[1,", "2]"]), Limits::json(10, 10), None);
        account.clone().scope(work).await.unwrap();
        assert_eq!(budget.held(), WEIGHT * 5 + VALUE * 2);
        drop(account);
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_can_hold_is_not_read() {
        let budget = Budget::undivided(1 << 20);
        let account = budget.account();
        let body = Full::new(Bytes::from(vec![b' '; 1 << 20]));
        let refused = account.scope(read(body, Limits::bytes(1 << 20), None)).await;
        assert!(matches!(refused, Err(ReadError::Exhausted(Exhausted::Project(_)))), "{refused:?}");
    }
}
