//! Raw contents, streamed in both directions: a file of any size needs the memory of one chunk.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use bytes::Bytes;
use emergent_guest_proto::{
    ErrorCode, GuestError,
    files::{PathQuery, UploadQuery},
};
use futures::Stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{
    entries::info_of,
    open::open_file,
    replace::{Expected, Replacement},
    target::Target,
};
use crate::{
    credentials,
    failure::invalid,
    guest::Guest,
    ledger::Named,
    message::{Reply, stream},
};

/// Bytes that are read at once.
const CHUNK: u64 = 256 * 1024;

/// Bytes of an upload that are written at once.
const WRITE_BATCH: usize = 1 << 20;

/// The size of the whole file, whatever part of it is sent.
const SIZE_HEADER: &str = "x-emergent-size";

/// Sends a file, or the part that a `Range` header names.
///
/// # Errors
/// That of the file system, or `invalid_request` for a part that the file does not have.
pub async fn download(guest: &Guest, wanted: PathQuery, headers: &HeaderMap) -> Result<Reply, GuestError> {
    let path = guest.resolve(&wanted.path);
    let account = guest.account(wanted.user)?;
    let (file, metadata) = credentials::with(account, move || open_file(&path)).await?;
    let size = metadata.len();
    let range = headers.get(header::RANGE).map(|value| part(value, size)).transpose()?;
    let (start, end) = range.unwrap_or((0, size));
    let mut reply = stream(chunks(Arc::new(file), start, end));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
    headers.insert(SIZE_HEADER, HeaderValue::from(size));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if range.is_some() {
        // An empty part has no last byte to name.
        let described = format!("bytes {start}-{}/{size}", end.saturating_sub(1));
        if let Ok(value) = HeaderValue::try_from(described) {
            headers.insert(header::CONTENT_RANGE, value);
        }
        *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(reply)
}

/// Takes a file. Until all of it has come, what stood there stays; when the caller vanishes, too.
///
/// # Errors
/// That of the file system, such as `disk_full`, `content_changed`, or `call_exists`.
pub async fn upload(
    guest: &Arc<Guest>,
    named: Named,
    wanted: UploadQuery,
    mut body: Incoming,
) -> Result<Reply, GuestError> {
    let account = guest.account(wanted.user)?;
    let path = guest.resolve(&wanted.path);
    let mut replacement =
        credentials::with(account, move || Replacement::begin(&Arc::new(Target::prepare(&path)?))).await?;
    let mut batch = Vec::new();
    let mut gathered = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| invalid("body", format!("the upload broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        gathered += data.len();
        batch.push(data);
        if gathered >= WRITE_BATCH {
            replacement = write(replacement, std::mem::take(&mut batch)).await?;
            gathered = 0;
        }
    }
    replacement = write(replacement, batch).await?;
    let find = move || Ok((vec![replacement.target().key_of_contents()?], replacement));
    let settle = move |replacement: Replacement| {
        // Not the path that was asked for, which may be a link to it.
        let path = replacement.target().path().to_owned();
        let expected = wanted.expected_sha256.as_ref().map_or(Expected::Anything, Expected::Hash);
        replacement.settle(wanted.mode, expected)?;
        info_of(&path)
    };
    // Begun when all of it is there: nothing has changed before.
    let (account, working) = (account.clone(), Arc::clone(guest));
    guest.ledger.run(named, async move { working.change(&account, find, settle).await }).await
}

async fn write(mut replacement: Replacement, batch: Vec<Bytes>) -> Result<Replacement, GuestError> {
    // The file is open: whose rights the thread has does not matter.
    credentials::blocking(move || {
        for bytes in batch {
            let written = replacement.file.write_all(&bytes);
            written.map_err(|error| replacement.target().failed("write", &error))?;
        }
        Ok(replacement)
    })
    .await
}

/// The bytes from `start` to `end`. A file that shrinks meanwhile breaks the stream off.
fn chunks(file: Arc<File>, start: u64, end: u64) -> impl Stream<Item = io::Result<Bytes>> {
    async_stream::try_stream! {
        let mut offset = start;
        while offset < end {
            let (reading, length) = (Arc::clone(&file), CHUNK.min(end - offset));
            let read = tokio::task::spawn_blocking(move || read_chunk(&reading, offset, length));
            let bytes = read.await.map_err(io::Error::other)??;
            offset += bytes.len() as u64;
            yield bytes;
        }
    }
}

fn read_chunk(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.into())
}

/// Reads `bytes=N-` and `bytes=N-M`; the end is exclusive.
fn part(value: &HeaderValue, size: u64) -> Result<(u64, u64), GuestError> {
    let refused = |message: String| Err(GuestError::new(ErrorCode::InvalidRequest, message).with_field("range"));
    let parsed =
        value.to_str().ok().and_then(|text| text.strip_prefix("bytes=")?.split_once('-')).and_then(|(from, to)| {
            let to = if to.is_empty() { Some(u64::MAX) } else { to.parse().ok() };
            Some((from.parse::<u64>().ok()?, to?))
        });
    match parsed {
        Some((from, to)) if from <= to && from <= size => Ok((from, to.saturating_add(1).min(size))),
        Some((from, to)) if from <= to => refused(format!("the file has {size} bytes, so none from {from}")),
        _ => refused("only `bytes=N-` and `bytes=N-M` are understood".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_within_the_file() {
        let part = |text: &'static str| part(&HeaderValue::from_static(text), 10).ok();
        assert_eq!(part("bytes=0-"), Some((0, 10)));
        assert_eq!(part("bytes=2-4"), Some((2, 5)));
        assert_eq!(part("bytes=2-400"), Some((2, 10)));
        assert_eq!(part("bytes=10-"), Some((10, 10)));
        assert_eq!(part("bytes=2-18446744073709551615"), Some((2, 10)));
        for refused in ["bytes=11-", "bytes=4-2", "bytes=-5", "bytes=a-", "items=1-2", "bytes=1-2,4-5"] {
            assert_eq!(part(refused), None, "{refused}");
        }
    }
}
