//! GPT-2's byte alphabet: each byte as one printable character, so that tokens can stand in JSON and GGUF as text.

/// The character of a byte.
pub fn byte_to_char(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    // The others follow from U+0100 on, in their order.
    let before = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Turns tokens written in the alphabet into bytes, and back.
#[derive(Debug, Clone)]
pub struct Alphabet {
    to_char: [char; 256],
    /// Byte of each code point below 0x180, or 256.
    to_byte: [u16; 0x180],
}

impl Default for Alphabet {
    fn default() -> Self {
        let mut this = Alphabet { to_char: ['\0'; 256], to_byte: [256; 0x180] };
        for byte in 0..=255_u8 {
            let character = byte_to_char(byte);
            this.to_char[byte as usize] = character;
            this.to_byte[character as usize] = u16::from(byte);
        }
        this
    }
}

impl Alphabet {
    /// The bytes of a token; `None` if a character is outside the alphabet.
    pub fn bytes(&self, token: &str) -> Option<Vec<u8>> {
        let byte =
            |character: char| self.to_byte.get(character as usize).filter(|&&byte| byte < 256).map(|&byte| byte as u8);
        token.chars().map(byte).collect()
    }

    /// The text of a token.
    pub fn text(&self, bytes: &[u8]) -> String {
        bytes.iter().map(|&byte| self.to_char[byte as usize]).collect()
    }
}
