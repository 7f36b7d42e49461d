//! Files out of forms (`multipart/form-data`), as browsers and `curl -F` send them: what is stored is the file, never
//! the envelope that it came in.

use std::{
    collections::BTreeMap,
    error::Error,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use emergent_budget::{Account, Exhausted};
use futures::{Stream, StreamExt as _, stream::BoxStream};
use multer::{Field, Multipart};
use tokio::task::yield_now;

/// The most bytes before the file and the most after it, in KiB: what cannot be told apart yet is kept until it can.
const AROUND_KIB: usize = 64;
/// The most bytes that the reader of forms is given at a time.
const PIECE: usize = 8 * 1024;

/// A form with one file.
pub struct Form {
    /// The fields that came before the file.
    pub fields: BTreeMap<String, String>,
    /// The file's bytes. They end with an error if anything that is no plain field follows them, or the form is not
    /// whole.
    pub contents: BoxStream<'static, io::Result<Bytes>>,
}

/// A body that no file can be taken from.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// The body is of another kind, or does not say what separates its parts.
    #[error("send the file as it is, or as a form of the type multipart/form-data with a boundary, as `curl -F` does")]
    NotAForm,
    /// The form has no file.
    #[error("the form has no file; name one, as in `curl -F file=@NAME`")]
    NoFile,
    /// The heads and fields around the file are too long.
    #[error("a form has at most {AROUND_KIB} KiB before its file, and after it; send the file as it is instead")]
    TooMuch,
    /// No form can be held.
    #[error(transparent)]
    Exhausted(Exhausted),
    /// The form cannot be read.
    #[error("the form cannot be read")]
    Broken(#[source] multer::Error),
}

/// Whether a body of this type has parts, and is not the file itself.
pub fn is_multipart(content_type: &str) -> bool {
    content_type.trim_start().get(..10).is_some_and(|beginning| beginning.eq_ignore_ascii_case("multipart/"))
}

/// The number of bytes of a form that may still be read before the reader knows whether they are the file's.
#[derive(Clone, Default)]
struct Allowance(Arc<AtomicUsize>);

/// Reads a form up to its file, which is the part that has a file's name or, if none has one, is called `file`.
///
/// The parts of the form that are kept are held on an account of the current request's project for as long as the form
/// is there.
///
/// # Errors
/// [`FormError`]; nothing is to be stored then.
pub async fn read(
    content_type: &str,
    body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<Form, FormError> {
    let boundary = multer::parse_boundary(content_type).map_err(|_| FormError::NotAForm)?;
    let account = Account::current().map(|whole| whole.another());
    if let Some(account) = &account {
        account.hold(AROUND_KIB << 10).await.map_err(FormError::Exhausted)?;
    }
    let allowance = Allowance::default();
    let mut parts = Multipart::new(in_pieces(body, allowance.clone()), boundary);
    let mut fields = BTreeMap::new();
    allowance.renew();
    while let Some(mut part) = parts.next_field().await? {
        if is_file(&part) {
            allowance.lift();
            return Ok(Form { fields, contents: contents(part, parts, allowance, account).boxed() });
        }
        let name = part.name().unwrap_or_default().to_owned();
        let mut value = Vec::new();
        while let Some(chunk) = part.chunk().await? {
            value.extend_from_slice(&chunk);
        }
        fields.insert(name, String::from_utf8_lossy(&value).into_owned());
    }
    Err(FormError::NoFile)
}

fn is_file(part: &Field<'_>) -> bool {
    part.file_name().is_some() || part.name() == Some("file")
}

/// A body in small pieces, as far as it may be read. The reader of forms takes all that is there before it looks at any
/// of it: after each piece nothing is there for a moment.
fn in_pieces(
    body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    allowance: Allowance,
) -> impl Stream<Item = Result<Bytes, Box<dyn Error + Send + Sync>>> + Send + 'static {
    async_stream::try_stream! {
        let mut body = pin!(body);
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk?;
            while !chunk.is_empty() {
                let piece = chunk.split_to(chunk.len().min(PIECE));
                allowance.use_up(piece.len())?;
                yield piece;
                yield_now().await;
            }
        }
    }
}

/// The bytes of a part, and an error if the form holds another file: one of the two would be lost without a word.
fn contents(
    mut file: Field<'static>,
    mut parts: Multipart<'static>,
    allowance: Allowance,
    account: Option<Account>,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    async_stream::try_stream! {
        let _held = account;
        while let Some(chunk) = file.chunk().await.map_err(broken)? {
            yield chunk;
        }
        drop(file);
        allowance.renew();
        while let Some(mut part) = parts.next_field().await.map_err(broken)? {
            if is_file(&part) {
                let text = "the form has more than one file; upload each by itself";
                Err::<(), _>(io::Error::new(io::ErrorKind::InvalidData, text))?;
            }
            while part.chunk().await.map_err(broken)?.is_some() {}
        }
    }
}

fn broken(error: multer::Error) -> io::Error {
    match FormError::from(error) {
        error @ FormError::TooMuch => io::Error::new(io::ErrorKind::InvalidData, error),
        error => io::Error::other(error),
    }
}

// === impl FormError ===

impl From<multer::Error> for FormError {
    fn from(error: multer::Error) -> Self {
        match &error {
            multer::Error::StreamReadFailed(source) if matches!(source.downcast_ref(), Some(Self::TooMuch)) => {
                Self::TooMuch
            }
            _ => Self::Broken(error),
        }
    }
}

// === impl Allowance ===

impl Allowance {
    /// Allows as much as may be around a file, and what a piece has beyond it.
    fn renew(&self) {
        self.0.store((AROUND_KIB << 10) + PIECE, Ordering::Relaxed);
    }

    /// Allows any number of bytes.
    fn lift(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }

    fn use_up(&self, bytes: usize) -> Result<(), FormError> {
        let used = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        used.map(|_| ()).map_err(|_| FormError::TooMuch)
    }
}

#[cfg(test)]
mod tests {
    use futures::{TryStreamExt as _, stream};

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=xyz";

    /// A body that comes in pieces of a few bytes.
    async fn read_in_pieces(text: &str) -> Result<Form, FormError> {
        let pieces: Vec<_> = text.as_bytes().chunks(7).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        read(TYPE, stream::iter(pieces)).await
    }

    fn part(head: &str, value: &str) -> String {
        format!("--xyz\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
    }

    async fn bytes(form: Form) -> io::Result<Vec<u8>> {
        form.contents
            .try_fold(Vec::new(), async |mut all, chunk| {
                all.extend_from_slice(&chunk);
                Ok(all)
            })
            .await
    }

    #[tokio::test]
    async fn the_file_comes_out_of_its_envelope_with_the_fields_before_it() {
        let file = part("name=\"upload\"; filename=\"a.bin\"", "two\r\nlines\r\n--xy");
        let text = part("name=\"path\"", "/workspace/a") + &file + &part("name=\"later\"", "x") + "--xyz--\r\n";
        let form = read_in_pieces(&text).await.unwrap();
        assert_eq!(form.fields, BTreeMap::from([("path".to_owned(), "/workspace/a".to_owned())]));
        assert_eq!(bytes(form).await.unwrap(), b"two\r\nlines\r\n--xy");
        let named = part("name=\"file\"", "plain") + "--xyz--\r\n";
        assert_eq!(bytes(read_in_pieces(&named).await.unwrap()).await.unwrap(), b"plain");
    }

    #[tokio::test]
    async fn a_form_without_a_file_or_with_two_or_cut_off_is_refused() {
        let field = part("name=\"path\"", "a") + "--xyz--\r\n";
        assert!(matches!(read_in_pieces(&field).await, Err(FormError::NoFile)));
        let file = part("name=\"f\"; filename=\"a\"", "contents");
        let two = format!("{file}{file}--xyz--\r\n");
        assert!(bytes(read_in_pieces(&two).await.unwrap()).await.unwrap_err().to_string().contains("more than one"));
        assert!(bytes(read_in_pieces(&file[..file.len() - 8]).await.unwrap()).await.is_err());
        for other in ["multipart/mixed; boundary=xyz", "multipart/form-data", "text/plain"] {
            assert!(matches!(read(other, stream::empty()).await, Err(FormError::NotAForm)), "{other}");
        }
    }

    /// A body that begins like this, goes on with `x` without end and is always ready, and how much of it was read.
    fn endless(beginning: &str) -> (impl Stream<Item = io::Result<Bytes>> + Send + use<>, Arc<AtomicUsize>) {
        let read = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&read);
        let more = stream::repeat(Bytes::from(vec![b'x'; 1 << 10]));
        let body = stream::iter([Bytes::copy_from_slice(beginning.as_bytes())]).chain(more).map(move |chunk| {
            count.fetch_add(chunk.len(), Ordering::Relaxed);
            Ok(chunk)
        });
        (body, read)
    }

    #[tokio::test]
    async fn a_form_whose_file_never_comes_is_refused_before_much_of_it_is_read() {
        let most = (AROUND_KIB << 10) + 2 * PIECE;
        let head = "--xyz\r\nContent-Disposition: form-data; name=\"f\"; x=\"";
        let field = "--xyz\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n";
        for beginning in ["a preamble", head, field] {
            let (body, read_bytes) = endless(beginning);
            assert!(matches!(read(TYPE, body).await, Err(FormError::TooMuch)), "{beginning}");
            assert!(read_bytes.load(Ordering::Relaxed) <= most, "{beginning}: {read_bytes:?}");
        }
        let whole = part("name=\"f\"; filename=\"a\"", "contents");
        for after in [head, field] {
            let (body, read_bytes) = endless(&(whole.clone() + after));
            let error = bytes(read(TYPE, body).await.unwrap()).await.unwrap_err();
            assert!(error.to_string().contains("64 KiB before its file, and after it"), "{error}");
            assert!(read_bytes.load(Ordering::Relaxed) <= most, "{after}: {read_bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_large_file_that_comes_at_once_counts_for_nothing() {
        let contents = "x".repeat(1 << 20);
        let text = part("name=\"file\"", &contents) + "--xyz--\r\n";
        let form = read(TYPE, stream::iter([Ok(Bytes::from(text))])).await.unwrap();
        assert_eq!(bytes(form).await.unwrap(), contents.as_bytes());
    }

    #[tokio::test]
    async fn what_is_kept_of_a_form_is_held_until_it_is_dropped() {
        let budget = emergent_budget::Budget::undivided(1 << 20);
        let text = part("name=\"file\"", "contents") + "--xyz--\r\n";
        let form = budget.account().scope(read_in_pieces(&text)).await.unwrap();
        assert_eq!(budget.held(), AROUND_KIB << 10);
        drop(form);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn only_what_has_parts_is_an_envelope() {
        assert!(is_multipart(TYPE) && is_multipart("Multipart/Mixed"));
        for other in ["application/octet-stream", "application/x-www-form-urlencoded", "multi", ""] {
            assert!(!is_multipart(other), "{other}");
        }
    }
}
