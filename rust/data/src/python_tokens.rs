//! Tokens of Python, as much of them as tells whether a file parses: names are not kept, values are not computed.
//!
//! Whatever is rare, new or wrong is [`Unsure`]: names beyond ASCII, old octal numbers, strings of Python 2. Indentation is counted as
//! CPython's tokenizer does, with tabs of eight and of one. Knows nothing of grammar.

/// The text is not Python, or not of the kind that is told here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsure;

/// What a token is; a keyword and an operator each have their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
#[rustfmt::skip]
pub enum Token {
    Name, Number, Text, Newline, Indent, Dedent, End,
    And, As, Assert, Async, Await, Break, Class, Continue, Def, Del, Elif, Else, Except, Finally, For, From, Global, If, Import,
    In, Is, Lambda, Nonlocal, Not, Or, Pass, Raise, Return, Try, While, With, Yield,
    Open, Close, OpenSquare, CloseSquare, OpenBrace, CloseBrace, Comma, Colon, Dot, Semicolon, At, Equal, Walrus, Arrow, Ellipsis,
    Bang, Star, Power, Sign, Tilde, Slash, Arithmetic, Comparison, Augmented,
}

/// Reads tokens one after another; `token` is the one that was read last.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// The token that was read last.
    pub token: Token,
    /// How many were read.
    pub count: usize,
    /// Open brackets: inside them the end of a line is white space.
    depth: usize,
    /// Columns of the blocks that are open, with tabs of eight and of one.
    indents: Vec<(usize, usize)>,
    dedents: usize,
    line_begins: bool,
    /// The text is an expression inside braces of a string.
    inside: bool,
}

impl<'a> Reader<'a> {
    /// A reader at the first token of a file.
    pub fn new(text: &'a [u8]) -> Result<Self, Unsure> {
        let mut reader = Self::before(text);
        reader.line_begins = true;
        reader.advance()?;
        Ok(reader)
    }

    /// A reader at the first token of an expression, in which ends of lines are white space.
    pub fn inside(text: &'a [u8]) -> Result<Self, Unsure> {
        let mut reader = Self::before(text);
        (reader.depth, reader.inside) = (1, true);
        reader.advance()?;
        Ok(reader)
    }

    fn before(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            token: Token::End,
            count: 0,
            depth: 0,
            indents: Vec::new(),
            dedents: 0,
            line_begins: false,
            inside: false,
        }
    }

    /// What follows the token that was read last.
    pub fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    fn byte(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Read the next token.
    pub fn advance(&mut self) -> Result<(), Unsure> {
        self.count += 1;
        if self.line_begins {
            self.line_begins = false;
            if let Some(token) = self.indentation()? {
                self.token = token;
                return Ok(());
            }
        }
        if self.dedents > 0 {
            self.dedents -= 1;
            self.token = Token::Dedent;
            return Ok(());
        }
        self.token = self.next()?;
        Ok(())
    }

    /// Skip lines that are empty, and tell whether the next one begins or ends blocks.
    fn indentation(&mut self) -> Result<Option<Token>, Unsure> {
        let (mut eight, mut one) = (0, 0);
        loop {
            match self.byte(0) {
                b' ' => (eight, one) = (eight + 1, one + 1),
                b'\t' => (eight, one) = (eight / 8 * 8 + 8, one + 1),
                b'\x0c' => (eight, one) = (0, 0),
                b'#' => {
                    self.skip_line();
                    continue;
                }
                b'\n' => (eight, one) = (0, 0),
                b'\\' => return Err(Unsure),
                _ => break,
            }
            self.at += 1;
        }
        if self.at >= self.text.len() {
            (eight, one) = (0, 0);
        }
        let last = self.indents.last().copied().unwrap_or((0, 0));
        if eight == last.0 {
            return if one == last.1 { Ok(None) } else { Err(Unsure) };
        }
        if eight > last.0 {
            if one <= last.1 || self.indents.len() >= 99 {
                return Err(Unsure);
            }
            self.indents.push((eight, one));
            return Ok(Some(Token::Indent));
        }
        while self.indents.last().is_some_and(|open| open.0 > eight) {
            self.indents.pop();
            self.dedents += 1;
        }
        if self.indents.last().copied().unwrap_or((0, 0)) != (eight, one) {
            return Err(Unsure);
        }
        Ok(None)
    }

    fn skip_line(&mut self) {
        let rest = self.rest();
        self.at += rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
    }

    fn next(&mut self) -> Result<Token, Unsure> {
        loop {
            match self.byte(0) {
                b' ' | b'\t' | b'\x0c' => self.at += 1,
                b'\\' if !self.inside && self.byte(1) == b'\n' && self.at + 2 < self.text.len() => self.at += 2,
                b'#' if !self.inside => self.skip_line(),
                b'\n' if self.depth > 0 => self.at += 1,
                b'\n' => {
                    self.at += 1;
                    self.line_begins = true;
                    return Ok(Token::Newline);
                }
                _ => break,
            }
        }
        let first = self.byte(0);
        match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => self.word(),
            b'"' | b'\'' => self.string(false),
            b'0'..=b'9' => self.number(),
            b'.' if self.byte(1).is_ascii_digit() => self.number(),
            0 => self.end(),
            _ => self.operator(first),
        }
    }

    /// The end of the text, which closes what is open.
    fn end(&mut self) -> Result<Token, Unsure> {
        if self.at < self.text.len() || (self.depth > 0 && !self.inside) {
            return Err(Unsure);
        }
        if !self.inside && self.token != Token::Newline && self.token != Token::Dedent && self.count > 1 {
            self.line_begins = true;
            return Ok(Token::Newline);
        }
        Ok(Token::End)
    }

    fn word(&mut self) -> Result<Token, Unsure> {
        let rest = self.rest();
        let size = rest.iter().position(|&byte| !is_name(byte)).unwrap_or(rest.len());
        let word = &rest[..size];
        self.at += size;
        match self.byte(0) {
            b'"' | b'\'' if size <= 2 => match word {
                b"r" | b"R" | b"b" | b"B" | b"u" | b"U" => self.string(false),
                b"f" | b"F" => self.string(true),
                [b'r' | b'R', b'b' | b'B'] | [b'b' | b'B', b'r' | b'R'] => self.string(false),
                [b'r' | b'R', b'f' | b'F'] | [b'f' | b'F', b'r' | b'R'] => self.string(true),
                _ => Ok(keyword(word)),
            },
            128.. => Err(Unsure),
            _ => match keyword(word) {
                Token::Lambda if self.inside && self.depth == 1 => Err(Unsure), // its colon would end the field
                token => Ok(token),
            },
        }
    }

    /// The string that begins here, after its prefix.
    fn string(&mut self, formatted: bool) -> Result<Token, Unsure> {
        let quote = self.byte(0);
        let triple = self.byte(1) == quote && self.byte(2) == quote;
        let begin = self.at + if triple { 3 } else { 1 };
        let mut at = begin;
        loop {
            let rest = self.text.get(at..).ok_or(Unsure)?;
            at += rest.iter().position(|&byte| byte == quote || byte == b'\\' || byte == b'\n').ok_or(Unsure)?;
            let byte = self.text[at];
            if byte == b'\\' {
                if self.inside {
                    return Err(Unsure); // before 3.12 there is none inside of braces
                }
                at += 2;
            } else if byte == b'\n' && !triple {
                return Err(Unsure);
            } else if byte == quote && (!triple || self.text[at..].starts_with(&[quote; 3])) {
                break;
            } else {
                at += 1;
            }
        }
        self.at = at + if triple { 3 } else { 1 };
        if formatted {
            crate::python::check_fields(&self.text[begin..at])?;
        }
        Ok(Token::Text)
    }

    fn number(&mut self) -> Result<Token, Unsure> {
        let rest = self.rest();
        let base = rest.get(1).map_or(0, u8::to_ascii_lowercase);
        let mut end;
        if rest[0] == b'0' && matches!(base, b'x' | b'o' | b'b') {
            end = 2 + rest[2..].iter().take_while(|&&byte| byte.is_ascii_hexdigit() || byte == b'_').count();
            let fits = |byte: &u8| match base {
                b'x' => true,
                b'o' => *byte < b'8' || *byte == b'_',
                _ => *byte < b'2' || *byte == b'_',
            };
            if end == 2 || !rest[2..end].iter().all(fits) {
                return Err(Unsure);
            }
        } else {
            end = digits(rest, 0);
            let mut whole = true;
            if rest.get(end) == Some(&b'.') {
                (end, whole) = (digits(rest, end + 1), false);
            }
            if matches!(rest.get(end), Some(b'e' | b'E')) {
                let sign = usize::from(matches!(rest.get(end + 1), Some(b'+' | b'-')));
                let stop = digits(rest, end + 1 + sign);
                if stop == end + 1 + sign {
                    return Err(Unsure);
                }
                (end, whole) = (stop, false);
            }
            if matches!(rest.get(end), Some(b'j' | b'J')) {
                (end, whole) = (end + 1, false);
            }
            if whole && rest[0] == b'0' && rest[..end].iter().any(|byte| matches!(byte, b'1'..=b'9')) {
                return Err(Unsure);
            }
        }
        if rest[..end].windows(2).any(|pair| pair == b"__") || rest[end - 1] == b'_' {
            return Err(Unsure);
        }
        self.at += end;
        match self.byte(0) {
            byte if is_name(byte) || byte >= 128 => Err(Unsure),
            _ => Ok(Token::Number),
        }
    }

    fn operator(&mut self, first: u8) -> Result<Token, Unsure> {
        let second = self.byte(1);
        let twice = second == first;
        let (token, size) = match first {
            b'(' | b'[' | b'{' => {
                self.depth += 1;
                (
                    if first == b'(' {
                        Token::Open
                    } else if first == b'[' {
                        Token::OpenSquare
                    } else {
                        Token::OpenBrace
                    },
                    1,
                )
            }
            b')' | b']' | b'}' => {
                if self.depth == 0 {
                    return Err(Unsure);
                }
                self.depth -= usize::from(!(self.inside && self.depth == 1));
                (
                    if first == b')' {
                        Token::Close
                    } else if first == b']' {
                        Token::CloseSquare
                    } else {
                        Token::CloseBrace
                    },
                    1,
                )
            }
            b',' => (Token::Comma, 1),
            b';' => (Token::Semicolon, 1),
            b'~' => (Token::Tilde, 1),
            b':' if second == b'=' => (Token::Walrus, 2),
            b':' => (Token::Colon, 1),
            b'.' if twice && self.byte(2) == b'.' => (Token::Ellipsis, 3),
            b'.' => (Token::Dot, 1),
            b'=' if twice => (Token::Comparison, 2),
            b'=' => (Token::Equal, 1),
            b'!' if second == b'=' => (Token::Comparison, 2),
            b'!' if self.inside => (Token::Bang, 1),
            b'-' if second == b'>' => (Token::Arrow, 2),
            b'<' | b'>' if twice && self.byte(2) == b'=' => (Token::Augmented, 3),
            b'<' | b'>' if twice => (Token::Arithmetic, 2),
            b'<' if second == b'>' => return Err(Unsure),
            b'<' | b'>' => (Token::Comparison, if second == b'=' { 2 } else { 1 }),
            b'*' | b'/' if twice && self.byte(2) == b'=' => (Token::Augmented, 3),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'@' | b'&' | b'|' | b'^' if second == b'=' => (Token::Augmented, 2),
            b'*' if twice => (Token::Power, 2),
            b'*' => (Token::Star, 1),
            b'/' if twice => (Token::Arithmetic, 2),
            b'/' => (Token::Slash, 1),
            b'+' | b'-' => (Token::Sign, 1),
            b'@' => (Token::At, 1),
            b'%' | b'&' | b'|' | b'^' => (Token::Arithmetic, 1),
            _ => return Err(Unsure),
        };
        self.at += size;
        Ok(token)
    }
}

/// The end of the digits that begin at `from`.
fn digits(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|&&byte| byte.is_ascii_digit() || byte == b'_').count()
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[rustfmt::skip]
fn keyword(word: &[u8]) -> Token {
    if word.len() < 2 || word.len() > 8 {
        return Token::Name;
    }
    match word {
        b"and" => Token::And, b"as" => Token::As, b"assert" => Token::Assert, b"async" => Token::Async,
        b"await" => Token::Await, b"break" => Token::Break, b"class" => Token::Class, b"continue" => Token::Continue,
        b"def" => Token::Def, b"del" => Token::Del, b"elif" => Token::Elif, b"else" => Token::Else,
        b"except" => Token::Except, b"finally" => Token::Finally, b"for" => Token::For, b"from" => Token::From,
        b"global" => Token::Global, b"if" => Token::If, b"import" => Token::Import, b"in" => Token::In,
        b"is" => Token::Is, b"lambda" => Token::Lambda, b"nonlocal" => Token::Nonlocal, b"not" => Token::Not,
        b"or" => Token::Or, b"pass" => Token::Pass, b"raise" => Token::Raise, b"return" => Token::Return,
        b"True" | b"False" | b"None" => Token::Number,
        b"try" => Token::Try, b"while" => Token::While, b"with" => Token::With, b"yield" => Token::Yield,
        _ => Token::Name,
    }
}
