//! Files out of forms (`multipart/form-data`), as browsers and `curl -F` send them: what is stored is the file, never
//! the envelope that it came in.

use std::{collections::BTreeMap, io};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream::BoxStream};
use multer::{Field, Multipart};

/// The most fields before the file, and the most bytes that each may have.
const FIELDS: usize = 32;
const FIELD_BYTES: usize = 16 * 1024;

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
    /// The parts before the file are too much.
    #[error("a form has at most {FIELDS} fields of {FIELD_BYTES} bytes before its file")]
    TooMuch,
    /// The form cannot be read.
    #[error("the form cannot be read")]
    Broken(#[source] multer::Error),
}

/// Whether a body of this type has parts, and is not the file itself.
pub fn is_multipart(content_type: &str) -> bool {
    content_type.trim_start().get(..10).is_some_and(|beginning| beginning.eq_ignore_ascii_case("multipart/"))
}

/// Reads a form up to its file, which is the part that has a file's name or, if none has one, is called `file`.
///
/// # Errors
/// [`FormError`]; nothing is to be stored then.
pub async fn read(
    content_type: &str,
    body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<Form, FormError> {
    let boundary = multer::parse_boundary(content_type).map_err(|_| FormError::NotAForm)?;
    let mut parts = Multipart::new(body, boundary);
    let mut fields = BTreeMap::new();
    while let Some(mut part) = parts.next_field().await.map_err(FormError::Broken)? {
        if is_file(&part) {
            return Ok(Form { fields, contents: contents(part, parts).boxed() });
        }
        let name = part.name().unwrap_or_default().to_owned();
        let mut value = Vec::new();
        while let Some(chunk) = part.chunk().await.map_err(FormError::Broken)? {
            value.extend_from_slice(&chunk);
            if value.len() > FIELD_BYTES || fields.len() >= FIELDS {
                return Err(FormError::TooMuch);
            }
        }
        fields.insert(name, String::from_utf8_lossy(&value).into_owned());
    }
    Err(FormError::NoFile)
}

fn is_file(part: &Field<'_>) -> bool {
    part.file_name().is_some() || part.name() == Some("file")
}

/// The bytes of a part, and an error if the form holds another file: one of the two would be lost without a word.
fn contents(mut file: Field<'static>, mut parts: Multipart<'static>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    async_stream::try_stream! {
        while let Some(chunk) = file.chunk().await.map_err(io::Error::other)? {
            yield chunk;
        }
        drop(file);
        while let Some(mut part) = parts.next_field().await.map_err(io::Error::other)? {
            if is_file(&part) {
                let text = "the form has more than one file; upload each by itself";
                Err::<(), _>(io::Error::new(io::ErrorKind::InvalidData, text))?;
            }
            while part.chunk().await.map_err(io::Error::other)?.is_some() {}
        }
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
        let many = part("name=\"a\"", &"x".repeat(FIELD_BYTES + 1)) + &file;
        assert!(matches!(read_in_pieces(&many).await, Err(FormError::TooMuch)));
        for other in ["multipart/mixed; boundary=xyz", "multipart/form-data", "text/plain"] {
            assert!(matches!(read(other, stream::empty()).await, Err(FormError::NotAForm)), "{other}");
        }
    }

    #[test]
    fn only_what_has_parts_is_an_envelope() {
        assert!(is_multipart(TYPE) && is_multipart("Multipart/Mixed"));
        for other in ["application/octet-stream", "application/x-www-form-urlencoded", "multi", ""] {
            assert!(!is_multipart(other), "{other}");
        }
    }
}
