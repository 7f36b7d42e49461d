//! Counting the values of JSON while it comes in, before anything is made of them.
//!
//! Two bytes such as `0,` become a value of tens of bytes in memory. So what is read is bounded in values, too; the
//! count is of the marks that separate them outside of texts, which needs no parser.

/// Counts the marks in what it has seen.
#[derive(Debug, Default)]
pub(crate) struct Values {
    count: usize,
    in_text: bool,
    escaped: bool,
}

// === impl Values ===

impl Values {
    /// Looks at the next bytes; answers the count until now.
    pub(crate) fn see(&mut self, bytes: &[u8]) -> usize {
        for byte in bytes {
            match (self.in_text, byte) {
                (true, _) if self.escaped => self.escaped = false,
                (true, b'\\') => self.escaped = true,
                (_, b'"') => self.in_text = !self.in_text,
                (false, b',' | b':' | b'[' | b'{') => self.count += 1,
                (_, _) => {}
            }
        }
        self.count
    }

    /// The count until now.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

/// Returns the number of marks in a JSON text that is there as a whole, as [`Limits`](crate::Limits) counts them.
pub fn values_in(json: &[u8]) -> usize {
    Values::default().see(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_counted_outside_of_texts_however_the_bytes_are_cut() {
        let json = br#"{"a,[{:":[1,2,"\",\\",{"b":"\\"}],"c":0}"#;
        for cut in 0..=json.len() {
            let mut values = Values::default();
            values.see(&json[..cut]);
            assert_eq!(values.see(&json[cut..]), 10, "cut at {cut}");
        }
    }
}
