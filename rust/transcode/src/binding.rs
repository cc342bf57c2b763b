//! HTTP rules bound to methods: what of a request fills which field.

use std::borrow::Cow;

use crate::error::{Error, ErrorKind, Result, SchemaError};
use crate::params::{self, Param};
use crate::parse::Parser;
use crate::pool::{Message, Pool};
use crate::print::Printer;
use crate::routes::RouteTable;
use crate::schema::{HttpRule, Method, Pattern};
use crate::transcoder::Options;

/// One declared route.
#[derive(Debug)]
pub struct Binding {
    /// `GET`, or what a custom pattern says; `*` is every method.
    pub http_method: String,
    /// The path template as declared.
    pub template: String,
    /// `/user.UserService/GetUser`
    pub rpc_path: String,
    /// `user.UserService`
    pub service: String,
    /// `GetUser`
    pub method: String,
    /// Field paths of the template's variables.
    pub variables: Vec<String>,
    /// Request field that the body fills; `*` for the whole message, empty for none.
    pub body: String,
    /// Reply field that is the answer; empty for the whole message.
    pub response_body: String,
    /// Full name of the request message.
    pub input_type: String,
    /// Full name of the reply message.
    pub output_type: String,
    /// Whether the client sends a stream.
    pub client_streaming: bool,
    /// Whether the server answers with a stream.
    pub server_streaming: bool,
    variable_fields: Vec<Vec<usize>>,
    body_kind: Body,
    /// Whether the path leaves the body a field to fill: `POST /orders/{id}:cancel` may not.
    needs_body: bool,
    response_field: Option<usize>,
    input: u32,
    output: u32,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    None,
    Whole,
    Field(usize),
}

impl Binding {
    /// Compile a method's rule and its additional ones, and add their routes.
    pub(crate) fn compile_all(
        pool: &Pool,
        service: &str,
        method: &Method,
        rule: &HttpRule,
        routes: &mut RouteTable,
        bindings: &mut Vec<Self>,
    ) -> Result<(), SchemaError> {
        for rule in std::iter::once(rule).chain(&rule.additional_bindings) {
            let compiled = Self::compile(pool, service, method, rule, routes)
                .map_err(|error| SchemaError(format!("{service}.{}: {error}", method.name)))?;
            bindings.push(compiled);
        }
        Ok(())
    }

    fn compile(
        pool: &Pool,
        service: &str,
        method: &Method,
        rule: &HttpRule,
        routes: &mut RouteTable,
    ) -> Result<Self, SchemaError> {
        let (http_method, template) = match &rule.pattern {
            Some(Pattern::Get(path)) => ("GET", path),
            Some(Pattern::Put(path)) => ("PUT", path),
            Some(Pattern::Post(path)) => ("POST", path),
            Some(Pattern::Delete(path)) => ("DELETE", path),
            Some(Pattern::Patch(path)) => ("PATCH", path),
            Some(Pattern::Custom(custom)) => (custom.kind.as_str(), &custom.path),
            None => return Err(SchemaError("the http rule has no pattern".to_owned())),
        };
        let rpc_path = format!("/{service}/{}", method.name);
        let (input, output) = (
            pool.resolve(&method.input_type)?,
            pool.resolve(&method.output_type)?,
        );
        let request = pool.message(input);
        let body_kind = match rule.body.as_str() {
            "" => Body::None,
            "*" => Body::Whole,
            name => Body::Field(member(request, name)?),
        };
        let response_field = match rule.response_body.as_str() {
            "" => None,
            name => Some(member(pool.message(output), name)?),
        };
        let route = routes.add(http_method, template, &rpc_path)?;
        let variables: Vec<String> = routes.variables(route).map(str::to_owned).collect();
        let variable_fields = variables
            .iter()
            .map(|name| variable_field(pool, request, name))
            .collect::<Result<Vec<_>, _>>()?;
        let by_path = |index: usize| variable_fields.contains(&vec![index]);
        let needs_body = match body_kind {
            Body::None => false,
            Body::Whole => (0..request.fields.len()).any(|index| !by_path(index)),
            Body::Field(_) => true,
        };
        Ok(Self {
            http_method: http_method.to_owned(),
            template: template.clone(),
            rpc_path,
            service: service.to_owned(),
            method: method.name.clone(),
            variables,
            body: rule.body.clone(),
            response_body: rule.response_body.clone(),
            input_type: request.full_name.to_string(),
            output_type: pool.message(output).full_name.to_string(),
            client_streaming: method.client_streaming,
            server_streaming: method.server_streaming,
            variable_fields,
            body_kind,
            needs_body,
            response_field,
            input,
            output,
        })
    }

    /// The request message's bytes.
    pub(crate) fn request(
        &self,
        pool: &Pool,
        options: &Options,
        values: &[impl AsRef<str>],
        query: &str,
        body: &[u8],
    ) -> Result<Vec<u8>> {
        let message = pool.message(self.input);
        let params = self.params(pool, options, values, query)?;
        if body.is_empty() {
            if self.needs_body {
                let reason = "this route needs a JSON body";
                return Err(Error::new(ErrorKind::MissingBody, reason));
            }
            let mut out = Vec::with_capacity(64);
            params::put(&mut out, 0, pool, message, &params, 0, None)?;
            return Ok(out);
        }
        let mut parser = Parser::new(pool, body, options.max_depth)?;
        let field = match self.body_kind {
            Body::None => {
                let reason = "this route takes no body";
                return Err(Error::new(ErrorKind::UnexpectedBody, reason));
            }
            Body::Whole => {
                parser.message(self.input)?;
                // What comes later on the wire wins: the path over the body.
                params::put(&mut parser.out, 0, pool, message, &params, 0, None)?;
                return parser.finish();
            }
            Body::Field(field) => field,
        };
        let (inside, outside): (Vec<_>, Vec<_>) = params
            .into_iter()
            .partition(|param| param.field[0] == field);
        let body_field = &message.fields[field];
        match body_field.kind.message().filter(|_| !inside.is_empty()) {
            Some(inner) => {
                body_field.tag.put(&mut parser.out);
                parser.nested(|parser| {
                    let (start, message) = (parser.out.len(), pool.message(inner));
                    parser.message(inner)?;
                    params::put(&mut parser.out, start, pool, message, &inside, 1, None)
                })?;
            }
            None => drop(parser.field(body_field)?),
        }
        params::put(&mut parser.out, 0, pool, message, &outside, 0, Some(field))?;
        parser.finish()
    }

    /// The reply's JSON.
    pub(crate) fn response(&self, pool: &Pool, options: &Options, reply: &[u8]) -> Result<Vec<u8>> {
        let mut printer = Printer::new(pool, options.print_defaults, reply.len());
        match self.response_field {
            None => printer.message(self.output, reply)?,
            Some(field) => printer.member(pool.message(self.output), reply, field)?,
        }
        Ok(printer.out)
    }

    /// Path variables and query parameters, sorted by field.
    fn params<'a>(
        &'a self,
        pool: &Pool,
        options: &Options,
        values: &'a [impl AsRef<str>],
        query: &'a str,
    ) -> Result<Vec<Param<'a>>> {
        if values.len() != self.variables.len() {
            let reason = format!("{} has {} variables", self.template, self.variables.len());
            return Err(Error::new(ErrorKind::BadTarget, reason));
        }
        let fields = self.variable_fields.iter().zip(&self.variables);
        let mut params: Vec<_> = fields
            .zip(values)
            .map(|((field, name), text)| Param {
                field: Cow::Borrowed(field.as_slice()),
                name: Cow::Borrowed(name),
                text: Cow::Borrowed(text.as_ref()),
            })
            .collect();
        if !query.is_empty() {
            let message = pool.message(self.input);
            params::parse_query(pool, message, query, options.max_depth, &mut params)?;
            self.check_query(&params[values.len()..])?;
        }
        params.sort_by(|a, b| a.field.cmp(&b.field));
        Ok(params)
    }

    /// The query has what neither path nor body has.
    fn check_query(&self, query: &[Param<'_>]) -> Result<()> {
        for param in query {
            let is_of_body = match self.body_kind {
                Body::None => false,
                Body::Whole => true,
                Body::Field(field) => param.field[0] == field,
            };
            if is_of_body {
                let reason = "this field comes in the body, not in the query";
                return Err(Error::new(ErrorKind::UnknownField, reason).in_field(&param.name));
            }
        }
        Ok(())
    }
}

fn member(message: &Message, name: &str) -> Result<usize, SchemaError> {
    message.by_name(name).ok_or_else(|| {
        SchemaError(format!(
            "the http rule names {name:?}, which {} has not",
            message.full_name
        ))
    })
}

fn variable_field(pool: &Pool, message: &Message, name: &str) -> Result<Vec<usize>, SchemaError> {
    let field = params::resolve(pool, message, name, usize::MAX)
        .map_err(|error| SchemaError(format!("path variable {error}")))?;
    let mut owner = message;
    for (at, index) in field.iter().enumerate() {
        let current = &owner.fields[*index];
        if current.is_repeated() {
            return Err(SchemaError(format!(
                "path variable {name}: the field is repeated"
            )));
        }
        match current.kind.message().filter(|_| at + 1 < field.len()) {
            Some(inner) => owner = pool.message(inner),
            None => break,
        }
    }
    Ok(field)
}
