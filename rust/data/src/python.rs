//! Python: whether a file surely parses, told without building a tree.
//!
//! A recursive descent over the grammar of Python 3.8 to 3.14 that says yes or [`Unsure`]: what is new, old, deeply nested or wrong is for
//! the interpreter's own parser to judge, which is ten times as slow. A yes is held to that parser by a property test over mutated
//! modules. What only a compiler objects to (a second parameter of the same name) is no error here. Knows nothing of other languages.

use crate::python_tokens::{Reader, Token, Unsure};

/// Nested brackets, blocks and lambdas that are followed.
const DEPTH: usize = 100;

type Found = Result<(), Unsure>;

/// Whether `text` is a module of Python.
pub fn parses(text: &str) -> bool {
    let module = |text: &str| -> Found {
        if text.as_bytes().contains(&0) {
            return Err(Unsure);
        }
        let mut parser = Parser { reader: Reader::new(text.as_bytes())?, depth: 0, computed: false, several: false };
        while parser.token() != Token::End {
            parser.statement()?;
        }
        Ok(())
    };
    module(text).is_ok()
}

/// Check what stands in the braces of a formatted string.
pub(crate) fn check_fields(text: &[u8]) -> Found {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == b'{' || byte == b'}') {
        if rest.get(at + 1) == Some(&rest[at]) {
            rest = &rest[at + 2..];
        } else if rest[at] == b'{' {
            rest = field(&rest[at + 1..], 0)?;
        } else {
            return Err(Unsure);
        }
    }
    Ok(())
}

/// What follows the field that begins in `text`, inside `level` others.
fn field(text: &[u8], level: usize) -> Result<&[u8], Unsure> {
    if level > 1 {
        return Err(Unsure);
    }
    let mut parser = Parser { reader: Reader::inside(text)?, depth: DEPTH / 2, computed: false, several: false };
    match parser.token() {
        Token::Yield => parser.yielded()?,
        Token::Star => return Err(Unsure),
        _ => parser.list(false)?,
    }
    parser.skip(Token::Equal)?;
    if parser.token() == Token::Bang {
        if !matches!(parser.reader.rest(), [b's' | b'r' | b'a', b':' | b'}', ..]) {
            return Err(Unsure);
        }
        parser.advance()?;
        parser.advance()?;
    }
    match parser.token() {
        Token::CloseBrace => Ok(parser.reader.rest()),
        Token::Colon => format(parser.reader.rest(), level + 1),
        _ => Err(Unsure),
    }
}

/// What follows the format specification that begins in `text`, and its brace.
fn format(text: &[u8], level: usize) -> Result<&[u8], Unsure> {
    let mut rest = text;
    loop {
        let at = rest.iter().position(|&byte| byte == b'{' || byte == b'}').ok_or(Unsure)?;
        let after = &rest[at + 1..];
        if rest[at] == b'}' {
            return Ok(after);
        }
        rest = field(after, level)?;
    }
}

struct Parser<'a> {
    reader: Reader<'a>,
    depth: usize,
    /// Outside of brackets something was read that nothing can be assigned to.
    computed: bool,
    /// Expressions with a comma between them were read.
    several: bool,
}

impl Parser<'_> {
    #[inline]
    fn token(&self) -> Token {
        self.reader.token
    }

    #[inline]
    fn advance(&mut self) -> Found {
        self.reader.advance()
    }

    #[inline]
    fn skip(&mut self, token: Token) -> Result<bool, Unsure> {
        let there = self.token() == token;
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    #[inline]
    fn expect(&mut self, token: Token) -> Found {
        if self.skip(token)? {
            Ok(())
        } else {
            Err(Unsure)
        }
    }

    fn deeper(&mut self, part: impl FnOnce(&mut Self) -> Found) -> Found {
        if self.depth >= DEPTH {
            return Err(Unsure);
        }
        let before = self.computed;
        self.depth += 1;
        let found = part(self);
        self.depth -= 1;
        self.computed = before;
        found
    }

    fn statement(&mut self) -> Found {
        match self.token() {
            Token::If | Token::While => {
                let is_if = self.token() == Token::If;
                self.advance()?;
                self.named()?;
                self.block()?;
                while is_if && self.skip(Token::Elif)? {
                    self.named()?;
                    self.block()?;
                }
                self.otherwise(Token::Else)
            }
            Token::For => self.for_loop(),
            Token::Try => self.attempt(),
            Token::With => self.with(),
            Token::Def => self.function(),
            Token::Class => self.class(),
            Token::At => {
                while self.skip(Token::At)? {
                    self.named()?;
                    self.expect(Token::Newline)?;
                }
                self.skip(Token::Async)?;
                match self.token() {
                    Token::Def => self.function(),
                    Token::Class => self.class(),
                    _ => Err(Unsure),
                }
            }
            Token::Async => {
                self.advance()?;
                match self.token() {
                    Token::Def => self.function(),
                    Token::For => self.for_loop(),
                    Token::With => self.with(),
                    _ => Err(Unsure),
                }
            }
            _ => self.simple_statements(),
        }
    }

    /// A colon, and what belongs to it: statements on the same line, or a block.
    fn block(&mut self) -> Found {
        self.expect(Token::Colon)?;
        if !self.skip(Token::Newline)? {
            return self.simple_statements();
        }
        self.expect(Token::Indent)?;
        self.deeper(|parser| {
            while parser.token() != Token::Dedent {
                parser.statement()?;
            }
            Ok(())
        })?;
        self.advance()
    }

    fn otherwise(&mut self, keyword: Token) -> Found {
        if self.skip(keyword)? {
            self.block()?;
        }
        Ok(())
    }

    fn for_loop(&mut self) -> Found {
        self.advance()?;
        self.targets()?;
        self.expect(Token::In)?;
        self.list(false)?;
        self.block()?;
        self.otherwise(Token::Else)
    }

    fn attempt(&mut self) -> Found {
        self.advance()?;
        self.block()?;
        let mut handled = false;
        while self.skip(Token::Except)? {
            handled = true;
            self.skip(Token::Star)?;
            if self.token() != Token::Colon {
                self.expression()?;
                if self.skip(Token::As)? {
                    self.expect(Token::Name)?;
                }
            }
            self.block()?;
        }
        if handled {
            self.otherwise(Token::Else)?;
        }
        if self.skip(Token::Finally)? {
            return self.block();
        }
        if handled {
            Ok(())
        } else {
            Err(Unsure)
        }
    }

    fn with(&mut self) -> Found {
        self.advance()?;
        let before = self.reader.clone();
        if self.with_items(Token::Colon).is_err() {
            self.reader = before;
            self.expect(Token::Open)?;
            self.with_items(Token::Close)?;
            self.advance()?;
        }
        self.block()
    }

    fn with_items(&mut self, end: Token) -> Found {
        loop {
            self.expression()?;
            if self.skip(Token::As)? {
                self.operand_chain()?;
            }
            if self.token() == end {
                return Ok(());
            }
            self.expect(Token::Comma)?;
            if end == Token::Close && self.token() == end {
                return Ok(());
            }
        }
    }

    fn function(&mut self) -> Found {
        self.advance()?;
        self.expect(Token::Name)?;
        self.expect(Token::Open)?;
        self.parameters(Token::Close, true)?;
        self.advance()?;
        if self.skip(Token::Arrow)? {
            self.expression()?;
        }
        self.block()
    }

    fn class(&mut self) -> Found {
        self.advance()?;
        self.expect(Token::Name)?;
        if self.skip(Token::Open)? {
            self.arguments()?;
        }
        self.block()
    }

    /// Parameters up to the token `end`, which is left.
    fn parameters(&mut self, end: Token, annotated: bool) -> Found {
        while self.token() != end {
            if self.token() == Token::Slash {
                self.advance()?;
            } else {
                let star = self.token() == Token::Star;
                let starred = star || self.token() == Token::Power;
                if starred {
                    self.advance()?;
                }
                if !(star && self.token() == Token::Comma) {
                    self.expect(Token::Name)?;
                    if annotated && self.skip(Token::Colon)? {
                        self.starred()?;
                    }
                    if self.token() == Token::Equal {
                        if starred {
                            return Err(Unsure);
                        }
                        self.advance()?;
                        self.expression()?;
                    }
                }
            }
            if self.token() != end {
                self.expect(Token::Comma)?;
            }
        }
        Ok(())
    }

    fn simple_statements(&mut self) -> Found {
        loop {
            self.simple_statement()?;
            if self.skip(Token::Semicolon)? && self.token() != Token::Newline {
                continue;
            }
            return self.expect(Token::Newline);
        }
    }

    fn ends(&self) -> bool {
        matches!(self.token(), Token::Newline | Token::Semicolon)
    }

    fn simple_statement(&mut self) -> Found {
        match self.token() {
            Token::Pass | Token::Break | Token::Continue => self.advance(),
            Token::Return => {
                self.advance()?;
                if self.ends() {
                    Ok(())
                } else {
                    self.list(false)
                }
            }
            Token::Raise => {
                self.advance()?;
                if self.ends() {
                    return Ok(());
                }
                self.expression()?;
                if self.skip(Token::From)? {
                    self.expression()?;
                }
                Ok(())
            }
            Token::Global | Token::Nonlocal => {
                self.advance()?;
                self.expect(Token::Name)?;
                while self.skip(Token::Comma)? {
                    self.expect(Token::Name)?;
                }
                Ok(())
            }
            Token::Del => {
                self.advance()?;
                self.targets()
            }
            Token::Assert => {
                self.advance()?;
                self.expression()?;
                if self.skip(Token::Comma)? {
                    self.expression()?;
                }
                Ok(())
            }
            Token::Import => {
                self.advance()?;
                loop {
                    self.dotted()?;
                    self.renamed()?;
                    if !self.skip(Token::Comma)? {
                        return Ok(());
                    }
                }
            }
            Token::From => self.import_from(),
            _ => self.assignment(),
        }
    }

    fn dotted(&mut self) -> Found {
        self.expect(Token::Name)?;
        while self.skip(Token::Dot)? {
            self.expect(Token::Name)?;
        }
        Ok(())
    }

    fn renamed(&mut self) -> Found {
        if self.skip(Token::As)? {
            self.expect(Token::Name)?;
        }
        Ok(())
    }

    fn import_from(&mut self) -> Found {
        self.advance()?;
        let mut relative = false;
        while self.skip(Token::Dot)? || self.skip(Token::Ellipsis)? {
            relative = true;
        }
        if !relative || self.token() == Token::Name {
            self.dotted()?;
        }
        self.expect(Token::Import)?;
        if self.skip(Token::Star)? {
            return Ok(());
        }
        let bracketed = self.skip(Token::Open)?;
        loop {
            self.expect(Token::Name)?;
            self.renamed()?;
            let more = self.skip(Token::Comma)?;
            if bracketed && self.skip(Token::Close)? {
                return Ok(());
            }
            if !more {
                return if bracketed { Err(Unsure) } else { Ok(()) };
            }
        }
    }

    fn assignment(&mut self) -> Found {
        (self.computed, self.several) = (false, false);
        self.value()?;
        match self.token() {
            Token::Colon | Token::Augmented | Token::Equal if self.computed => Err(Unsure),
            Token::Colon | Token::Augmented if self.several => Err(Unsure),
            Token::Colon => {
                self.advance()?;
                self.expression()?;
                if self.skip(Token::Equal)? {
                    self.value()?;
                }
                Ok(())
            }
            Token::Augmented => {
                self.advance()?;
                self.value()
            }
            _ => {
                while self.skip(Token::Equal)? {
                    self.computed = false;
                    self.value()?;
                    if self.computed && self.token() == Token::Equal {
                        return Err(Unsure);
                    }
                }
                Ok(())
            }
        }
    }

    fn value(&mut self) -> Found {
        if self.token() == Token::Yield {
            self.yielded()
        } else {
            self.list(false)
        }
    }

    fn yielded(&mut self) -> Found {
        self.advance()?;
        self.computed = true;
        if self.skip(Token::From)? {
            return self.expression();
        }
        match self.token() {
            Token::Newline | Token::Semicolon | Token::Close | Token::CloseBrace | Token::Equal | Token::Bang => Ok(()),
            _ => self.list(false),
        }
    }

    /// Targets of a loop or of `del`: what may stand in front of `in`.
    fn targets(&mut self) -> Found {
        self.computed = false;
        loop {
            self.skip(Token::Star)?;
            self.operand_chain()?;
            if !self.skip(Token::Comma)? || self.token() == Token::In || self.ends() {
                return if self.computed { Err(Unsure) } else { Ok(()) };
            }
        }
    }

    /// Expressions with commas between them, one of which may stand at the end.
    fn list(&mut self, named: bool) -> Found {
        loop {
            if named {
                self.named()?;
            } else {
                self.starred()?;
            }
            if !self.skip(Token::Comma)? {
                return Ok(());
            }
            self.several = true;
            if !self.begins() {
                return Ok(());
            }
        }
    }

    /// Whether an expression may begin with the token.
    #[rustfmt::skip]
    fn begins(&self) -> bool {
        matches!(
            self.token(),
            Token::Name | Token::Number | Token::Text | Token::Open | Token::OpenSquare | Token::OpenBrace | Token::Sign
                | Token::Tilde | Token::Not | Token::Lambda | Token::Await | Token::Ellipsis | Token::Star
        )
    }

    fn starred(&mut self) -> Found {
        if self.skip(Token::Star)? {
            return self.operand_chain();
        }
        self.expression()
    }

    /// An expression that may be starred, or given a name by `:=`.
    fn named(&mut self) -> Found {
        if self.skip(Token::Star)? {
            return self.operand_chain();
        }
        let (name, count) = (self.token() == Token::Name, self.reader.count);
        self.expression()?;
        if self.token() == Token::Walrus {
            if !name || self.reader.count != count + 1 {
                return Err(Unsure);
            }
            self.advance()?;
            self.expression()?;
        }
        Ok(())
    }

    fn expression(&mut self) -> Found {
        if self.token() == Token::Lambda {
            self.computed = true;
            return self.deeper(|parser| {
                parser.advance()?;
                parser.parameters(Token::Colon, false)?;
                parser.advance()?;
                parser.expression()
            });
        }
        self.disjunction()?;
        if self.skip(Token::If)? {
            self.disjunction()?;
            self.expect(Token::Else)?;
            self.computed = true;
            return self.deeper(Self::expression);
        }
        Ok(())
    }

    /// Operands with `and`, `or`, `not` and comparisons between them.
    fn disjunction(&mut self) -> Found {
        loop {
            while self.skip(Token::Not)? {
                self.computed = true;
            }
            loop {
                self.operand_chain()?;
                match self.token() {
                    Token::Comparison | Token::In => self.advance()?,
                    Token::Is => {
                        self.advance()?;
                        self.skip(Token::Not)?;
                    }
                    Token::Not => {
                        self.advance()?;
                        self.expect(Token::In)?;
                    }
                    _ => break,
                }
                self.computed = true;
            }
            if !(self.skip(Token::And)? || self.skip(Token::Or)?) {
                return Ok(());
            }
            self.computed = true;
        }
    }

    /// Operands with arithmetic between them.
    fn operand_chain(&mut self) -> Found {
        loop {
            while matches!(self.token(), Token::Sign | Token::Tilde) {
                self.advance()?;
                self.computed = true;
            }
            self.computed |= self.skip(Token::Await)?;
            self.operand()?;
            match self.token() {
                Token::Sign | Token::Star | Token::Slash | Token::Arithmetic | Token::At | Token::Power => {
                    self.advance()?
                }
                _ => return Ok(()),
            }
            self.computed = true;
        }
    }

    fn operand(&mut self) -> Found {
        match self.token() {
            Token::Name => self.advance()?,
            Token::Number | Token::Ellipsis => {
                self.computed = true;
                self.advance()?;
            }
            Token::Text => {
                self.computed = true;
                while self.skip(Token::Text)? {}
            }
            Token::Open | Token::OpenSquare => {
                let end = if self.token() == Token::Open { Token::Close } else { Token::CloseSquare };
                let mut inside = false;
                self.deeper(|parser| {
                    parser.bracketed(end)?;
                    inside = parser.computed;
                    Ok(())
                })?;
                self.computed |= inside;
            }
            Token::OpenBrace => {
                self.deeper(Self::braced)?;
                self.computed = true;
            }
            _ => return Err(Unsure),
        }
        let mut called = false;
        loop {
            match self.token() {
                Token::Dot => {
                    self.advance()?;
                    self.expect(Token::Name)?;
                }
                Token::Open => {
                    self.advance()?;
                    self.deeper(Self::arguments)?;
                    called = true;
                    continue;
                }
                Token::OpenSquare => {
                    self.advance()?;
                    self.deeper(Self::subscript)?;
                }
                _ => break,
            }
            called = false;
        }
        self.computed |= called;
        Ok(())
    }

    /// A tuple, a list, a generator, or an expression in brackets.
    fn bracketed(&mut self, end: Token) -> Found {
        self.advance()?;
        if self.skip(end)? {
            return Ok(());
        }
        if end == Token::Close && self.token() == Token::Yield {
            self.yielded()?;
            return self.expect(end);
        }
        self.named()?;
        if matches!(self.token(), Token::For | Token::Async) {
            self.comprehension()?;
        } else {
            while self.skip(Token::Comma)? && self.token() != end {
                self.named()?;
            }
        }
        self.expect(end)
    }

    /// A dictionary or a set.
    fn braced(&mut self) -> Found {
        self.advance()?;
        let mut pairs = None;
        while self.token() != Token::CloseBrace {
            if self.skip(Token::Power)? {
                if pairs.replace(true) == Some(false) {
                    return Err(Unsure);
                }
                self.operand_chain()?;
            } else {
                self.named()?;
                let pair = self.skip(Token::Colon)?;
                if pair {
                    self.expression()?;
                }
                let before = pairs.replace(pair);
                if before.is_some_and(|before| before != pair) {
                    return Err(Unsure);
                }
                if before.is_none() && matches!(self.token(), Token::For | Token::Async) {
                    self.comprehension()?;
                    break;
                }
            }
            if !self.skip(Token::Comma)? {
                break;
            }
        }
        self.expect(Token::CloseBrace)
    }

    fn comprehension(&mut self) -> Found {
        while matches!(self.token(), Token::For | Token::Async) {
            self.skip(Token::Async)?;
            self.expect(Token::For)?;
            self.targets()?;
            self.expect(Token::In)?;
            self.disjunction()?;
            while self.skip(Token::If)? {
                self.disjunction()?;
            }
        }
        self.computed = true;
        Ok(())
    }

    /// Arguments of a call and the bracket that ends them.
    fn arguments(&mut self) -> Found {
        let mut first = true;
        while self.token() != Token::Close {
            if self.skip(Token::Star)? || self.skip(Token::Power)? {
                self.expression()?;
            } else {
                let (name, count) = (self.token() == Token::Name, self.reader.count);
                self.named()?;
                if self.token() == Token::Equal {
                    if !name || self.reader.count != count + 1 {
                        return Err(Unsure);
                    }
                    self.advance()?;
                    self.expression()?;
                } else if first && matches!(self.token(), Token::For | Token::Async) {
                    self.comprehension()?;
                    break;
                }
            }
            first = false;
            if !self.skip(Token::Comma)? {
                break;
            }
        }
        self.expect(Token::Close)
    }

    /// Indices and slices and the bracket that ends them; there is at least one.
    fn subscript(&mut self) -> Found {
        loop {
            if !matches!(self.token(), Token::Colon) {
                self.named()?;
            }
            for _ in 0..2 {
                if self.skip(Token::Colon)? && !matches!(self.token(), Token::Colon | Token::Comma | Token::CloseSquare)
                {
                    self.expression()?;
                }
            }
            if !self.skip(Token::Comma)? || self.token() == Token::CloseSquare {
                return self.expect(Token::CloseSquare);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_every_kind() {
        for text in [
            "",
            "# nothing\n",
            "x = 1",
            "import a.b as c, d\nfrom . import (a, b as c,)\nfrom ...x.y import *\n",
            "if a:\n  b\nelif (c := d):\n  pass\nelse: e; f\n",
            "for x, *y in a, b:\n    print(x, end='')\nelse:\n    pass\nwhile not x: x -= 1\n",
            "try:\n  a\nexcept (A, B) as e:\n  raise C from e\nexcept:\n  raise\nelse:\n  b\nfinally:\n  c\n",
            "with a as b, c() as d.e: pass\nwith (a as b, c as d,):\n  pass\nwith (a, b): pass\n",
            "@a.b(1)\nasync def f(a, /, b: int = 1, *args, c=2, **k) -> x: return await y\n",
            "class A(B, metaclass=C):\n\tx: int = 1\n\n\tdef f(self): yield\n",
            "x = y = [a for b in c if d if e for f in g]\nz = {1: 2, **a}, {1, *b}, {a: b for c in d}, (a for b in c)\n",
            "x[1:2, ::3, ...] = lambda *a, b=1: (yield)\nassert a, b\ndel a, b[0]\nglobal g, h\n",
            "f(*a, **b, c=1)(x for x in y)[0].z @= -1 ** ~2 // 3 if a else not b is not c not in d\n",
            "s = f'{a!r:>{width}} {a!s}{a!a:} {(lambda b: c)(d)} {{x}} {b[\"k\"]:%Y-%m} {c=}' rb'x' \"\"\"a\n'b\"\"\"\n",
            "x = 0x_ff + 0b1 + 0o7 + 1_000.5e-3j + .5 + 1. + 0\n",
            "def f(\n    a,  # first\n):\n    return \\\n        a\n",
        ] {
            assert!(parses(text), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_or_rare_is_for_others() {
        for text in [
            "print 'x'\n",
            "x = (1\n",
            "x = 1)\n",
            "def f():\npass\n",
            "if a:\n    b\n  c\n",
            "x = 'a\n",
            "a b\n",
            "f'{'\n",
            "f'{a b}'\n",
            "f'{a!z}'\n",
            "f'{a!rr}'\n",
            "f'{a! r}'\n",
            "f'{a:{b!z}}'\n",
            "f'{*a}'\n",
            "f'{lambda a: b}'\n",
            "f'{a, lambda b: c}'\n",
            "f'{a\\\n}'\n",
            "f'}'\n",
            "x = 1 +\n",
            "f(a.b=1)\n",
            "a = 08\n",
            "exec 'x' in y\n",
            "except:\n  pass\n",
            "try:\n  a\n",
            "x = {1: 2, 3}\n",
            "x = a if b\n",
            "lambda: :\n",
            "x = 10L\n",
            "a <> b\n",
            "\u{e9} = 1\n",
            "x = `a`\n",
            "class A:\n",
            "for x in:\n  pass\n",
            "x[]\n",
            "from . import\n",
            "from x import (a\n",
            "x = a == not b\n",
            "return return\n",
            "a = f(x) = b\n",
            "(1, a) = b\n",
            "{a} = b\n",
            "[a for a in b] = c\n",
            "if a:\n\tb\n        c\n",
        ] {
            assert!(!parses(text), "{text}");
        }
        assert!(!parses(&"(".repeat(100_000)));
        assert!(!parses(&format!("x = {}1\n", "lambda: ".repeat(100_000))));
        assert!(parses(&format!("x = {}1\n", "-".repeat(100_000))));
    }
}
