//! Path templates of `google.api.http`.
//!
//! ```text
//! Template = "/" [ Segments ] [ ":" LITERAL ]     Segments = Segment { "/" Segment }
//! Segment  = "*" | "**" | LITERAL | Variable      Variable = "{" FieldPath [ "=" Segments ] "}"
//! ```
//! `**` matches any number of segments, none too, and comes last.

use crate::error::SchemaError;
use crate::path;

#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) segments: Vec<Segment>,
    pub(crate) verb: Option<Box<str>>,
    pub(crate) variables: Vec<Variable>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Percent-decoded.
    Literal(Box<str>),
    One,
    Rest,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: Box<str>,
    pub(crate) start: usize,
    /// One after its last segment; `None` if it reaches to the path's end.
    pub(crate) end: Option<usize>,
    /// Whether it can have several segments: then its slashes are told from its `%2F`.
    pub(crate) is_multi: bool,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, SchemaError> {
        let fail = |what: &str| SchemaError(format!("path template {text:?}: {what}"));
        let path = text
            .strip_prefix('/')
            .ok_or_else(|| fail("it must start with a slash"))?;
        let (path, verb) = split_verb(path);
        if verb.is_some_and(str::is_empty) {
            return Err(fail("the verb after the colon is empty"));
        }
        let mut parser = Parser {
            rest: path,
            segments: Vec::new(),
            variables: Vec::new(),
        };
        if !path.is_empty() {
            parser.segments(false).map_err(|what| fail(&what))?;
        }
        if !parser.rest.is_empty() {
            return Err(fail(&format!("unexpected {:?}", parser.rest)));
        }
        let Parser {
            segments,
            variables,
            ..
        } = parser;
        let rest_at = segments
            .iter()
            .position(|segment| *segment == Segment::Rest);
        if rest_at.is_some_and(|at| at + 1 < segments.len()) {
            return Err(fail("** must be the last segment"));
        }
        for (at, variable) in variables.iter().enumerate() {
            if variables[..at]
                .iter()
                .any(|other| other.name == variable.name)
            {
                return Err(fail(&format!(
                    "the variable {} is there twice",
                    variable.name
                )));
            }
        }
        Ok(Self {
            segments,
            verb: verb.map(Into::into),
            variables,
        })
    }
}

/// Cut off the verb: a colon after the last slash that is outside braces.
fn split_verb(path: &str) -> (&str, Option<&str>) {
    match path.rsplit_once(':') {
        Some((path, verb)) if !verb.contains(['/', '}']) => (path, Some(verb)),
        _ => (path, None),
    }
}

struct Parser<'t> {
    rest: &'t str,
    segments: Vec<Segment>,
    variables: Vec<Variable>,
}

impl Parser<'_> {
    fn segments(&mut self, in_variable: bool) -> Result<(), String> {
        loop {
            self.segment(in_variable)?;
            match self.rest.strip_prefix('/') {
                Some(rest) => self.rest = rest,
                None => return Ok(()),
            }
        }
    }

    fn segment(&mut self, in_variable: bool) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix('{') {
            if in_variable {
                return Err("a variable cannot hold another one".to_owned());
            }
            self.rest = rest;
            return self.variable();
        }
        let end = self.rest.find(['/', '{', '}']).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.segments.push(match text {
            "" => return Err("a segment is empty".to_owned()),
            "*" => Segment::One,
            "**" => Segment::Rest,
            _ if text.contains('*') => {
                return Err(format!("{text:?}: a wildcard must be a whole segment"));
            }
            _ => Segment::Literal(literal(text)?),
        });
        Ok(())
    }

    fn variable(&mut self) -> Result<(), String> {
        let end = self
            .rest
            .find(['=', '}'])
            .ok_or("a variable does not end")?;
        let (name, rest) = self.rest.split_at(end);
        if name.split('.').any(|part| !is_identifier(part)) {
            return Err(format!("{name:?} is no field path"));
        }
        let start = self.segments.len();
        if let Some(rest) = rest.strip_prefix('=') {
            self.rest = rest;
            self.segments(true)?;
        } else {
            self.rest = rest;
            self.segments.push(Segment::One);
        }
        self.rest = self
            .rest
            .strip_prefix('}')
            .ok_or("a variable does not end")?;
        let own = &self.segments[start..];
        let reaches_end = own.contains(&Segment::Rest);
        self.variables.push(Variable {
            name: name.into(),
            start,
            end: (!reaches_end).then_some(self.segments.len()),
            is_multi: reaches_end || own.len() > 1,
        });
        Ok(())
    }
}

fn literal(text: &str) -> Result<Box<str>, String> {
    path::decode_segment(text)
        .map(Into::into)
        .map_err(|error| format!("{text:?}: {}", error.reason()))
}

fn is_identifier(text: &str) -> bool {
    !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_know_their_segments() {
        let template = Template::parse("/v1/{name=shelves/*/books/**}:read").unwrap();
        assert_eq!(template.segments.len(), 5);
        assert_eq!(template.verb.as_deref(), Some("read"));
        let variable = Variable {
            name: "name".into(),
            start: 1,
            end: None,
            is_multi: true,
        };
        assert_eq!(template.variables, [variable]);
        let template = Template::parse("/a/{b.c}/{d=*}/{e=f/*}").unwrap();
        let spans = template
            .variables
            .iter()
            .map(|variable| (variable.start, variable.end));
        assert!(spans.eq([(1, Some(2)), (2, Some(3)), (3, Some(5))]));
        let multi = template.variables.iter().map(|variable| variable.is_multi);
        assert!(multi.eq([false, false, true]));
    }

    #[test]
    fn literals_are_decoded() {
        let template = Template::parse("/caf%C3%A9/x:y").unwrap();
        assert_eq!(template.segments[0], Segment::Literal("café".into()));
        assert_eq!(template.verb.as_deref(), Some("y"));
        assert!(Template::parse("/").unwrap().segments.is_empty());
    }

    #[test]
    fn faults_are_refused() {
        for text in [
            "",
            "a",
            "//",
            "/a/",
            "/a//b",
            "/{",
            "/{}",
            "/{a",
            "/{a=}",
            "/{a={b}}",
            "/{1a}",
            "/{a..b}",
            "/**/a",
            "/a*",
            "/{a=**}/b",
            "/{a}/{a}",
            "/a:",
            "/a}b",
            "/%zz",
            "/..",
            "/{a}b",
            "/a\\b",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
