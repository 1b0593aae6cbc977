//! A parser for Python literals as `repr` writes them: dict, list, tuple, str, int, float, True,
//! False, None.
//!
//! The grammar is that of the Python Language Reference, sections 2.4 to 2.7 and 6.2, without bytes,
//! sets, prefixed, triple-quoted and adjacent strings, none of which `repr` writes for these types.

/// How deep containers may nest; data nests three deep, and a bound keeps the stack from overflowing.
pub const MAX_DEPTH: usize = 64;

/// A Python value.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An integer that fits in 64 bits.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    Str(String),
    /// `[...]`
    List(Vec<Literal>),
    /// `(...)`
    Tuple(Vec<Literal>),
    /// `{key: value, ...}`, in the order written, repeated keys included.
    Dict(Vec<(Literal, Literal)>),
}

impl Literal {
    /// The Python name of its type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
        }
    }

    /// The value of a string key in a dict; of a repeated key the last, as in Python.
    pub fn get(&self, key: &str) -> Option<&Literal> {
        let Self::Dict(items) = self else { return None };
        items
            .iter()
            .rev()
            .find(|(known, _)| matches!(known, Self::Str(name) if name == key))
            .map(|(_, value)| value)
    }
}

/// Where a text stops being a Python literal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: expected {expected}, found {found}")]
pub struct LiteralError {
    /// From 1, in characters.
    pub column: usize,
    /// What would have been right.
    pub expected: &'static str,
    /// What stands there.
    pub found: String,
}

/// Parses the one literal that a text holds, white space around it allowed.
///
/// # Errors
/// [`LiteralError`] at the first character that no Python literal of these types could have there.
pub fn parse(text: &str) -> Result<Literal, LiteralError> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.space();
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.error("the end of the line")),
    }
}

struct Parser<'t> {
    text: &'t str,
    /// Byte offset, always at a character's boundary.
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.at += wanted.len_utf8();
        }
        there
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r' | '\x0c')) {
            self.at += 1;
        }
    }

    fn error(&self, expected: &'static str) -> LiteralError {
        let found = match self.peek() {
            None => "the end of the line".to_owned(),
            Some(quote @ ('\'' | '"')) => format!("`{quote}`"),
            Some(found) => format!("`{}`", found.escape_debug()),
        };
        self.error_at(self.at, expected, found)
    }

    fn error_at(&self, at: usize, expected: &'static str, found: String) -> LiteralError {
        LiteralError { column: self.text[..at].chars().count() + 1, expected, found }
    }

    fn value(&mut self, depth: usize) -> Result<Literal, LiteralError> {
        self.space();
        if depth > MAX_DEPTH {
            return Err(self.error("at most 64 nested containers"));
        }
        match self.peek() {
            Some('{') => self.dict(depth),
            Some('[') => {
                self.at += 1;
                Ok(Literal::List(self.items(']', "`,` or `]`", depth)?.0))
            }
            Some('(') => {
                self.at += 1;
                let (mut items, comma) = self.items(')', "`,` or `)`", depth)?;
                // `(x)` is x in brackets, `(x,)` a tuple of one.
                match items.pop() {
                    Some(only) if items.is_empty() && !comma => Ok(only),
                    last => {
                        items.extend(last);
                        Ok(Literal::Tuple(items))
                    }
                }
            }
            Some(quote @ ('\'' | '"')) => {
                self.at += 1;
                Ok(Literal::Str(self.string(quote)?))
            }
            Some('0'..='9' | '.' | '+' | '-') => self.number(),
            Some(letter) if letter.is_ascii_alphabetic() => self.word(),
            _ => Err(self.error("a Python literal")),
        }
    }

    /// The items up to the closing bracket, and whether the last was followed by a comma.
    fn items(
        &mut self,
        close: char,
        expected: &'static str,
        depth: usize,
    ) -> Result<(Vec<Literal>, bool), LiteralError> {
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            self.space();
            if self.eat(close) {
                return Ok((items, comma));
            }
            if !items.is_empty() && !comma {
                return Err(self.error(expected));
            }
            items.push(self.value(depth + 1)?);
            self.space();
            comma = self.eat(',');
        }
    }

    fn dict(&mut self, depth: usize) -> Result<Literal, LiteralError> {
        self.at += 1;
        let mut items = Vec::new();
        let mut comma = true;
        loop {
            self.space();
            if self.eat('}') {
                return Ok(Literal::Dict(items));
            }
            if !comma {
                return Err(self.error("`,` or `}`"));
            }
            let start = self.at;
            let key = self.value(depth + 1)?;
            if matches!(key, Literal::List(_) | Literal::Dict(_)) {
                let found = format!("a {}", key.type_name());
                return Err(self.error_at(start, "a key that can be hashed", found));
            }
            self.space();
            if !self.eat(':') {
                return Err(self.error("`:`"));
            }
            let value = self.value(depth + 1)?;
            items.push((key, value));
            self.space();
            comma = self.eat(',');
        }
    }

    fn word(&mut self) -> Result<Literal, LiteralError> {
        let start = self.at;
        while matches!(self.peek(), Some(c) if c.is_alphanumeric() || c == '_') {
            self.next();
        }
        match &self.text[start..self.at] {
            "None" => Ok(Literal::None),
            "True" => Ok(Literal::Bool(true)),
            "False" => Ok(Literal::Bool(false)),
            other => {
                let found = format!("`{}`", other.chars().take(40).collect::<String>());
                Err(self.error_at(start, "a Python literal", found))
            }
        }
    }

    /// Decimal integers and floats; `repr` writes no other notation.
    fn number(&mut self) -> Result<Literal, LiteralError> {
        let start = self.at;
        if matches!(self.peek(), Some('+' | '-')) {
            self.at += 1;
        }
        let digits = self.at;
        while matches!(self.peek(), Some(c) if c.is_ascii_alphanumeric() || c == '.' || c == '_')
            || (matches!(self.peek(), Some('+' | '-'))
                && matches!(self.text.as_bytes()[self.at - 1], b'e' | b'E'))
        {
            self.next();
        }
        let body = &self.text[digits..self.at];
        let shown = |parser: &Self| {
            let text = &parser.text[start..parser.at];
            format!("`{}`", text.chars().take(40).collect::<String>())
        };
        let plain = |text: &str| text.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        let well_formed = plain(body)
            && body.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
        if !well_formed {
            return Err(self.error_at(start, "a decimal number", shown(self)));
        }
        let text = self.text[start..self.at].trim_start_matches('+');
        if body.bytes().all(|b| b.is_ascii_digit()) {
            // Python refuses leading zeros, which older versions read as octal.
            if body.len() > 1 && body.starts_with('0') && body.bytes().any(|b| b != b'0') {
                return Err(self.error_at(start, "a number without leading zeros", shown(self)));
            }
            return text
                .parse()
                .map(Literal::Int)
                .map_err(|_| self.error_at(start, "an integer of 64 bits", shown(self)));
        }
        text.parse()
            .map(Literal::Float)
            .map_err(|_| self.error_at(start, "a decimal number", shown(self)))
    }

    /// The rest of a string after its opening quote.
    fn string(&mut self, quote: char) -> Result<String, LiteralError> {
        let mut value = String::new();
        loop {
            match self.peek() {
                None | Some('\n') => return Err(self.error("the closing quote")),
                Some('\\') => self.escape(&mut value)?,
                Some(other) => {
                    self.at += other.len_utf8();
                    if other == quote {
                        return Ok(value);
                    }
                    value.push(other);
                }
            }
        }
    }

    fn escape(&mut self, value: &mut String) -> Result<(), LiteralError> {
        let start = self.at;
        self.at += 1;
        let Some(kind) = self.next() else {
            return Err(self.error("a character after the backslash"));
        };
        let character = match kind {
            '\n' => return Ok(()),
            '\\' | '\'' | '"' => kind,
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' => self.hexadecimal(start, 2, "two hexadecimal digits after \\x")?,
            'u' => self.hexadecimal(start, 4, "four hexadecimal digits after \\u")?,
            'U' => self.hexadecimal(start, 8, "eight hexadecimal digits after \\U")?,
            '0'..='7' => self.octal(kind),
            'N' => {
                let expected = "an escape by number: names of characters are not supported";
                return Err(self.error_at(start, expected, "`\\N`".to_owned()));
            }
            // Python keeps an unknown escape as it stands.
            other => {
                value.push('\\');
                other
            }
        };
        value.push(character);
        Ok(())
    }

    fn hexadecimal(
        &mut self,
        start: usize,
        digits: usize,
        expected: &'static str,
    ) -> Result<char, LiteralError> {
        let mut code = 0;
        for _ in 0..digits {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) else {
                return Err(self.error(expected));
            };
            self.at += 1;
            code = code * 16 + digit;
        }
        // A lone surrogate is a Python str and no Unicode text.
        char::from_u32(code).ok_or_else(|| {
            let found = format!("`{}`", &self.text[start..self.at]);
            self.error_at(start, "a Unicode character", found)
        })
    }

    /// Up to three octal digits, of which the first is read: at most 0o777, always a character.
    fn octal(&mut self, first: char) -> char {
        let mut code = first.to_digit(8).unwrap_or(0);
        for _ in 0..2 {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else {
                break;
            };
            self.at += 1;
            code = code * 8 + digit;
        }
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
    }
}

#[cfg(test)]
mod tests;
