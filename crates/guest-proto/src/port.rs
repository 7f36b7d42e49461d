//! The agreement of host and guest on where a channel begins, on a port that has no connections.
//!
//! A virtio-serial port carries bytes between host and guest. Either side may go away and come back, even in another
//! process or after the machine was saved and restored, and the other may not have noticed; bytes that were written
//! before are still under way. So a channel begins with an agreement:
//!
//! ```text
//! host   Hello(n) ───►      ───► Begin(n)            ┐ the channel
//! guest         ───► Ready(n)             ───► Begun(n)┘
//! ```
//!
//! `n` is drawn at random for each attempt. The host repeats its hello until the guest answers; both sides skip all
//! bytes that do not belong to the attempt. The bytes after `Begin` and `Begun` are the channel's. A guest that meets a
//! greeting in the middle of an old channel finds that its HTTP/2 is broken, gives the channel up, and hears the next
//! greeting.

/// The length of every message.
pub const MESSAGE: usize = 32;

/// The first and last bytes of every message. No HTTP/2 frame has them, and no message that was cut short.
const MAGIC: &[u8; 11] = b"\xf1emergent-p";
const END: &[u8; 4] = b"ort\xf2";
const KIND_AT: usize = MAGIC.len();
const NONCE_AT: usize = KIND_AT + 1;
const END_AT: usize = MESSAGE - END.len();

/// The random number that identifies an attempt.
pub type Nonce = [u8; 16];

/// The messages before a channel begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The host is ready.
    Hello,
    /// The guest has received the hello.
    Ready,
    /// The bytes that the host sends from here on are the channel's.
    Begin,
    /// The bytes that the guest sends from here on are the channel's.
    Begun,
}

/// Returns the bytes of a message.
pub fn message(kind: Kind, nonce: &Nonce) -> [u8; MESSAGE] {
    let mut bytes = [0; MESSAGE];
    bytes[..KIND_AT].copy_from_slice(MAGIC);
    bytes[KIND_AT] = kind.byte();
    bytes[NONCE_AT..END_AT].copy_from_slice(nonce);
    bytes[END_AT..].copy_from_slice(END);
    bytes
}

/// Finds messages between other bytes.
///
/// The caller reads at most [`wanted`](Self::wanted) bytes at a time: then nothing that follows a message has been read
/// when the message is found.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The bytes of a message that is not complete.
    begun: Vec<u8>,
}

// === impl Kind ===

impl Kind {
    const ALL: [Self; 4] = [Self::Hello, Self::Ready, Self::Begin, Self::Begun];

    fn byte(self) -> u8 {
        match self {
            Self::Hello => b'h',
            Self::Ready => b'r',
            Self::Begin => b'b',
            Self::Begun => b'g',
        }
    }
}

// === impl Scanner ===

impl Scanner {
    /// Returns the least number of bytes that are missing.
    pub fn wanted(&self) -> usize {
        MESSAGE - self.begun.len()
    }

    /// Takes bytes, at most [`wanted`](Self::wanted) of them; returns the message that they complete, if any.
    pub fn push(&mut self, bytes: &[u8]) -> Option<(Kind, Nonce)> {
        self.begun.extend_from_slice(bytes);
        // Another message may begin within what is none.
        while !self.may_be_message() {
            self.begun.remove(0);
        }
        if self.begun.len() < MESSAGE {
            return None;
        }
        let nonce = Nonce::try_from(self.begun.get(NONCE_AT..END_AT)?).ok()?;
        let kind = Kind::ALL.into_iter().find(|kind| Some(&kind.byte()) == self.begun.get(KIND_AT))?;
        self.begun.clear();
        Some((kind, nonce))
    }

    fn may_be_message(&self) -> bool {
        let magic = self.begun.iter().zip(MAGIC).all(|(byte, expected)| byte == expected);
        let kind = self.begun.get(KIND_AT).is_none_or(|byte| Kind::ALL.iter().any(|kind| kind.byte() == *byte));
        let end = self.begun.iter().skip(END_AT).zip(END).all(|(byte, expected)| byte == expected);
        magic && kind && end && self.begun.len() <= MESSAGE
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(mut bytes: &[u8]) -> (Vec<(Kind, Nonce)>, usize) {
        let (mut scanner, mut all) = (Scanner::default(), Vec::new());
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(scanner.wanted().min(bytes.len()));
            all.extend(scanner.push(now));
            bytes = later;
        }
        (all, scanner.begun.len())
    }

    #[test]
    fn a_message_after_a_part_of_one_is_found() {
        let hello = message(Kind::Hello, &[7; 16]);
        for length in 0..MESSAGE {
            let bytes = [&hello[..length], &hello, b"PRI"].concat();
            assert_eq!(found(&bytes).0, [(Kind::Hello, [7; 16])].as_slice(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn messages_are_found_between_other_bytes(
            before in prop::collection::vec(any::<u8>(), 0..100),
            nonce in any::<Nonce>(),
            kind in 0..4_usize,
        ) {
            let bytes = [before.as_slice(), &message(Kind::ALL[kind], &nonce)].concat();
            let (all, left) = found(&bytes);
            prop_assert_eq!(all.last(), Some(&(Kind::ALL[kind], nonce)));
            prop_assert_eq!(left, 0);
        }
    }
}
