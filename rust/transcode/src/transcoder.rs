//! A descriptor set compiled: its types, its routes, and both translations.

use prost::Message as _;

use crate::binding::Binding;
use crate::error::{Result, SchemaError};
use crate::parse::Parser;
use crate::pool::Pool;
use crate::print::Printer;
use crate::routes::{Found, Miss, RouteTable};
use crate::schema::FileSet;

/// Deepest nesting that may be asked for: what a small thread's stack surely carries.
const MOST_DEPTH: usize = 128;

/// How documents are read and written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Objects and arrays that a document may nest, 1 to 128.
    pub max_depth: usize,
    /// Write fields without presence that hold their default.
    pub print_defaults: bool,
    /// Pass over fields that a message named to [`Transcoder::parse`] has not; a request that is
    /// routed never has them.
    pub ignore_unknown: bool,
    /// Services whose routes are declared; `None` is all.
    pub services: Option<Vec<String>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_depth: 64,
            print_defaults: false,
            ignore_unknown: false,
            services: None,
        }
    }
}

/// The declared routes of a descriptor set, and the translation of their messages.
#[derive(Debug)]
pub struct Transcoder {
    pool: Pool,
    options: Options,
    routes: RouteTable,
    bindings: Vec<Binding>,
}

impl Transcoder {
    /// Compile a serialized `FileDescriptorSet` that holds all that its files import.
    pub fn new(descriptor_set: &[u8], options: Options) -> Result<Self, SchemaError> {
        if !(1..=MOST_DEPTH).contains(&options.max_depth) {
            return Err(SchemaError(format!(
                "the limit of depth must be 1 to {MOST_DEPTH}"
            )));
        }
        let set = FileSet::decode(descriptor_set)
            .map_err(|error| SchemaError(format!("this is no FileDescriptorSet: {error}")))?;
        let pool = Pool::new(&set)?;
        let mut routes = RouteTable::default();
        let mut bindings = Vec::new();
        let mut missing = options.services.clone().unwrap_or_default();
        for file in &set.file {
            for service in &file.service {
                let dot = if file.package.is_empty() { "" } else { "." };
                let name = format!("{}{dot}{}", file.package, service.name);
                missing.retain(|wanted| *wanted != name);
                if options
                    .services
                    .as_ref()
                    .is_some_and(|wanted| !wanted.contains(&name))
                {
                    continue;
                }
                for method in &service.method {
                    let http = method
                        .options
                        .as_ref()
                        .and_then(|options| options.http.as_ref());
                    if let Some(rule) = http {
                        let bindings = &mut bindings;
                        Binding::compile_all(&pool, &name, method, rule, &mut routes, bindings)?;
                    }
                }
            }
        }
        if let Some(name) = missing.first() {
            return Err(SchemaError(format!(
                "the descriptor set has no service {name}"
            )));
        }
        Ok(Self {
            pool,
            options,
            routes,
            bindings,
        })
    }

    /// The declared routes, in the order of files, services, methods and rules.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// Find the route of a request: [`Found::route`] is an index of [`Self::bindings`].
    pub fn find<'t>(&self, method: &str, target: &'t str) -> Result<Found<'t>, Miss> {
        self.routes.find(method, target)
    }

    /// Translate a request that was found into the bytes of its binding's input message.
    pub fn request(
        &self,
        binding: &Binding,
        values: &[impl AsRef<str>],
        query: &str,
        body: &[u8],
    ) -> Result<Vec<u8>> {
        binding.request(&self.pool, &self.options, values, query, body)
    }

    /// Translate a reply's bytes into the JSON of its binding.
    pub fn response(&self, binding: &Binding, reply: &[u8]) -> Result<Vec<u8>> {
        binding.response(&self.pool, &self.options, reply)
    }

    /// Translate a document into a message by its full name; `None` if there is no such message.
    pub fn parse(&self, message_type: &str, document: &[u8]) -> Option<Result<Vec<u8>>> {
        let index = self.pool.find(message_type)?;
        Some(
            Parser::new(&self.pool, document, self.options.max_depth).and_then(|mut parser| {
                parser.ignore_unknown = self.options.ignore_unknown;
                parser.message(index)?;
                parser.finish()
            }),
        )
    }

    /// Translate a message's bytes into JSON by its full name; `None` if there is no such message.
    pub fn print(&self, message_type: &str, message: &[u8]) -> Option<Result<Vec<u8>>> {
        let index = self.pool.find(message_type)?;
        let mut printer = Printer::new(&self.pool, self.options.print_defaults, message.len());
        Some(printer.message(index, message).map(|()| printer.out))
    }
}
