//! The removal of credentials from git's messages.

/// Replaces user and password of every URL by `***`.
pub(super) fn redact(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + "://".len());
        redacted.push_str(before);
        // The authority ends at a slash, a space or a quotation mark; what stands in it before `@` is a secret.
        let end = after.find(|character: char| character.is_whitespace() || "/'\"<>".contains(character));
        let authority = &after[..end.unwrap_or(after.len())];
        match authority.rfind('@') {
            Some(at) => {
                redacted.push_str("***");
                rest = &after[at..];
            }
            None => rest = after,
        }
    }
    redacted.push_str(rest);
    redacted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credentials_go_and_the_rest_stays() {
        let said = "fatal: unable to access 'https://ada:s3cret@example.org/x.git/' and ssh://git@host:22/y@z";
        let expected = "fatal: unable to access 'https://***@example.org/x.git/' and ssh://***@host:22/y@z";
        assert_eq!(redact(said), expected);
        assert_eq!(redact("https://example.org/a@b"), "https://example.org/a@b");
    }

    proptest! {
        #[test]
        fn no_password_survives(before in "[a-z :]{0,8}", user in "[a-z]{0,6}", after in "[a-z/ ]{0,8}") {
            let said = format!("{before}https://{user}:PASSWORD@host/{after}");
            prop_assert!(!redact(&said).contains("PASSWORD"));
        }

        #[test]
        fn text_without_urls_is_unchanged(text in "[a-z@/' :]{0,20}") {
            prop_assume!(!text.contains("://"));
            prop_assert_eq!(redact(&text), text);
        }
    }
}
