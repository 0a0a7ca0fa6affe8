//! Decodes a stream of tokens into text that never ends inside a character. Knows only bytes.

/// Bytes that wait for the rest of their character.
#[derive(Debug, Default, Clone)]
pub struct Utf8Stream {
    waiting: Vec<u8>,
}

impl Utf8Stream {
    /// Adds bytes and returns the text that is whole now; what can never become a character is U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.waiting.extend_from_slice(bytes);
        let mut text = String::new();
        let mut done = 0;
        while done < self.waiting.len() {
            match std::str::from_utf8(&self.waiting[done..]) {
                Ok(rest) => {
                    text.push_str(rest);
                    done = self.waiting.len();
                }
                Err(error) => {
                    let valid = done + error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.waiting[done..valid]));
                    done = valid;
                    match error.error_len() {
                        Some(length) => {
                            text.push('\u{fffd}');
                            done += length;
                        }
                        None => break,
                    }
                }
            }
        }
        self.waiting.drain(..done);
        text
    }

    /// What is left at the end of the stream; an unfinished character is U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.waiting).into_owned();
        self.waiting.clear();
        text
    }
}
