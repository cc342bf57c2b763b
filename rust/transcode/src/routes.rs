//! Which route takes a request.

use std::borrow::Cow;

use rustc_hash::FxHashMap;

use crate::error::{Error, Result, SchemaError};
use crate::path::{Decoding, PathSegment, Target, decode, decode_segment};
use crate::template::{Segment, Template, Variable};

/// The method of a route that takes every method.
const ANY_METHOD: &str = "*";

/// Routes in a tree of path segments.
///
/// Of several routes that fit, a literal segment wins over a variable and a variable over `**`,
/// from the left; a template with a verb over one without. A request's method is part of the fit:
/// a path that suits its method less exactly is preferred to the answer "wrong method".
#[derive(Debug)]
pub struct RouteTable {
    nodes: Vec<Node>,
    routes: Vec<Route>,
    has_verbs: bool,
}

#[derive(Debug, Default)]
struct Node {
    literals: FxHashMap<Box<str>, usize>,
    one: Option<usize>,
    /// Routes that end here.
    ends: Vec<End>,
    /// Routes whose `**` begins here.
    rests: Vec<End>,
}

#[derive(Debug)]
struct End {
    method: Box<str>,
    verb: Option<Box<str>>,
    route: usize,
}

#[derive(Debug)]
struct Route {
    template: Box<str>,
    owner: Box<str>,
    variables: Vec<Variable>,
}

/// The route of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'t> {
    /// Its index, in the order of additions.
    pub route: usize,
    /// What its variables have, percent-decoded.
    pub values: Vec<String>,
    /// The query string as it was sent.
    pub query: &'t str,
}

/// Why a request has no route.
#[derive(Debug)]
#[non_exhaustive]
pub enum Miss {
    /// The target is malformed.
    BadTarget(Error),
    /// No route has this path.
    NotFound,
    /// The path's routes take these methods, sorted, and no others.
    WrongMethod(Vec<String>),
}

impl Default for RouteTable {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            routes: Vec::new(),
            has_verbs: false,
        }
    }
}

impl RouteTable {
    /// Add a route; its index is the number of those before it.
    ///
    /// `owner` names it in the error of a later route that takes the same requests.
    pub fn add(&mut self, method: &str, template: &str, owner: &str) -> Result<usize, SchemaError> {
        let is_method = |byte: u8| byte.is_ascii_uppercase() || byte == b'-' || byte == b'_';
        if method != ANY_METHOD && (method.is_empty() || !method.bytes().all(is_method)) {
            return Err(SchemaError(format!(
                "{method:?} is no HTTP method in upper case"
            )));
        }
        let Template {
            segments,
            verb,
            variables,
        } = Template::parse(template)?;
        let mut at = 0;
        let mut has_rest = false;
        for segment in segments {
            let fresh = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match segment {
                Segment::Rest => {
                    has_rest = true;
                    break;
                }
                Segment::One => *node.one.get_or_insert(fresh),
                Segment::Literal(text) => *node.literals.entry(text).or_insert(fresh),
            };
            if at == self.nodes.len() {
                self.nodes.push(Node::default());
            }
        }
        let node = &mut self.nodes[at];
        let ends = if has_rest {
            &mut node.rests
        } else {
            &mut node.ends
        };
        if let Some(other) = ends
            .iter()
            .find(|end| *end.method == *method && end.verb == verb)
        {
            let other = &self.routes[other.route];
            return Err(SchemaError(format!(
                "{method} {template} of {owner} takes the requests of {} of {}",
                other.template, other.owner
            )));
        }
        let route = self.routes.len();
        self.has_verbs |= verb.is_some();
        ends.push(End {
            method: method.into(),
            verb,
            route,
        });
        let (template, owner) = (template.into(), owner.into());
        self.routes.push(Route {
            template,
            owner,
            variables,
        });
        Ok(route)
    }

    /// Names of a route's variables, in the order of [`Found::values`].
    pub fn variables(&self, route: usize) -> impl Iterator<Item = &str> {
        let variables = self
            .routes
            .get(route)
            .map_or(&[][..], |route| &route.variables);
        variables.iter().map(|variable| &*variable.name)
    }

    /// Find the route of a request.
    pub fn find<'t>(&self, method: &str, target: &'t str) -> Result<Found<'t>, Miss> {
        let Target { segments, query } = Target::parse(target).map_err(Miss::BadTarget)?;
        let mut allowed = Vec::new();
        if let Some((segments, verb)) = self.has_verbs.then(|| split_verb(&segments)).flatten() {
            let request = Request {
                segments: &segments,
                method,
                verb: Some(verb),
            };
            if let Some(route) = self.search(0, 0, &request, &mut allowed) {
                return self.found(route, &segments, query);
            }
        }
        let request = Request {
            segments: &segments,
            method,
            verb: None,
        };
        if let Some(route) = self.search(0, 0, &request, &mut allowed) {
            return self.found(route, &segments, query);
        }
        if allowed.is_empty() {
            return Err(Miss::NotFound);
        }
        allowed.sort_unstable();
        allowed.dedup();
        Err(Miss::WrongMethod(
            allowed.into_iter().map(str::to_owned).collect(),
        ))
    }

    /// Walk the tree. A node is at one depth only, so each is visited once at most.
    fn search<'s>(
        &'s self,
        node: usize,
        depth: usize,
        request: &Request<'_>,
        allowed: &mut Vec<&'s str>,
    ) -> Option<usize> {
        let node = &self.nodes[node];
        let Some(segment) = request.segments.get(depth) else {
            return request
                .end(&node.ends, allowed)
                .or_else(|| request.end(&node.rests, allowed));
        };
        if segment.raw.is_empty() {
            return None;
        }
        let literal = node.literals.get(&*segment.decoded).copied();
        for next in [literal, node.one].into_iter().flatten() {
            let found = self.search(next, depth + 1, request, allowed);
            if found.is_some() {
                return found;
            }
        }
        if request.has_trailing_slash() {
            None
        } else {
            request.end(&node.rests, allowed)
        }
    }

    fn found<'t>(
        &self,
        route: usize,
        segments: &[PathSegment<'_>],
        query: &'t str,
    ) -> Result<Found<'t>, Miss> {
        let variables = self.routes[route].variables.iter();
        let values = variables
            .map(|variable| variable.value(segments))
            .collect::<Result<_>>();
        Ok(Found {
            route,
            values: values.map_err(Miss::BadTarget)?,
            query,
        })
    }
}

impl Variable {
    fn value(&self, segments: &[PathSegment<'_>]) -> Result<String> {
        let end = self.end.unwrap_or(segments.len());
        let own = segments.get(self.start..end).unwrap_or_default();
        if !self.is_multi {
            return Ok(own.iter().map(|segment| &*segment.decoded).collect());
        }
        let mut value = String::new();
        for segment in own {
            if !value.is_empty() {
                value.push('/');
            }
            match segment.decoded {
                Cow::Borrowed(plain) => value.push_str(plain),
                Cow::Owned(_) => value.push_str(&decode(segment.raw, Decoding::Segments)?),
            }
        }
        Ok(value)
    }
}

/// The segments with the last one's verb cut off, and the verb: what follows the last colon as it
/// was sent.
fn split_verb<'t>(segments: &[PathSegment<'t>]) -> Option<(Vec<PathSegment<'t>>, &'t str)> {
    let (last, others) = segments.split_last()?;
    let (raw, verb) = last.raw.rsplit_once(':')?;
    let decoded = decode_segment(raw).ok()?;
    let mut segments = others.to_vec();
    segments.push(PathSegment { raw, decoded });
    Some((segments, verb))
}

struct Request<'r> {
    segments: &'r [PathSegment<'r>],
    method: &'r str,
    verb: Option<&'r str>,
}

impl Request<'_> {
    fn has_trailing_slash(&self) -> bool {
        self.segments
            .last()
            .is_some_and(|segment| segment.raw.is_empty())
    }

    /// The route among those at one place that takes the method; else note what they take.
    fn end<'s>(&self, ends: &'s [End], allowed: &mut Vec<&'s str>) -> Option<usize> {
        let mut any_method = None;
        for end in ends.iter().filter(|end| end.verb.as_deref() == self.verb) {
            if *end.method == *self.method {
                return Some(end.route);
            }
            if &*end.method == ANY_METHOD {
                any_method = Some(end.route);
            } else {
                allowed.push(&end.method);
            }
        }
        any_method
    }
}
