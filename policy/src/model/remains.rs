//! What a RequestAuthentication that cannot be read still says of requests: which headers nobody but a proxy may set,
//! and where it looks for tokens. On the safe side: rather a name too many than one too few.

use std::collections::BTreeSet;

use crate::cursor::meant;
use crate::model::Object;
use crate::model::authorization::is_header_name;
use crate::model::request::{Locations, RULE};
use crate::node::{Node, Tree};

/// Most bytes of names in all. Every request is looked through for each of them.
pub const MAX_REMAINS_BYTES: usize = 16 * 1024;

/// Names out of such an object. Headers are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Headers that may carry a token, each with the text before it.
    pub headers: BTreeSet<(String, String)>,
    /// Query parameters that may.
    pub params: BTreeSet<String>,
    /// Cookies that may.
    pub cookies: BTreeSet<String>,
    /// Headers that tell the application of a token.
    pub outputs: BTreeSet<String>,
}

impl Remains {
    /// What is found in the document, wherever it stands: misspelt and misplaced fields are what faults are like.
    pub(crate) fn of(document: &Node) -> Self {
        let mut found = Self::default();
        if let Tree::Map(fields) = &document.value {
            let told = fields.iter().filter(|(name, _)| name != "metadata");
            told.for_each(|(name, node)| found.field(name, node));
        }
        found
    }

    /// What a sound object says.
    pub(crate) fn of_object(object: &Object) -> Self {
        let mut found = Self::default();
        let rules = match object {
            Object::Request(request) => request.rules.as_slice(),
            Object::Authorization(_) | Object::Peer(_) => &[],
        };
        for rule in rules {
            found.headers.extend(rule.locations.headers.iter().cloned());
            found.params.extend(rule.locations.params.iter().cloned());
            found.cookies.extend(rule.locations.cookies.iter().cloned());
            found.outputs.extend(rule.outputs.headers().map(str::to_owned));
        }
        found
    }

    /// Both together.
    pub(crate) fn join(&mut self, other: Self) {
        self.headers.extend(other.headers);
        self.params.extend(other.params);
        self.cookies.extend(other.cookies);
        self.outputs.extend(other.outputs);
    }

    /// Bytes of its names.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let prefixed = self
            .headers
            .iter()
            .map(|(name, prefix)| name.len() + prefix.len());
        let plain = [&self.params, &self.cookies, &self.outputs];
        let plain = plain.into_iter().flatten().map(String::len);
        prefixed.chain(plain).sum()
    }

    /// Where tokens are looked for: here, and in the usual places.
    pub(crate) fn locations(&self) -> Locations {
        let usual = Self::of_locations(Locations::default());
        let mut all = self.clone();
        all.join(usual);
        Locations {
            headers: all.headers.into_iter().collect(),
            params: all.params.into_iter().collect(),
            cookies: all.cookies.into_iter().collect(),
        }
    }

    fn of_locations(locations: Locations) -> Self {
        Self {
            headers: locations.headers.into_iter().collect(),
            params: locations.params.into_iter().collect(),
            cookies: locations.cookies.into_iter().collect(),
            outputs: BTreeSet::new(),
        }
    }

    fn walk(&mut self, node: &Node) {
        match &node.value {
            Tree::Map(fields) => fields.iter().for_each(|(name, node)| self.field(name, node)),
            Tree::List(items) => items.iter().for_each(|item| self.walk(item)),
            _ => {}
        }
    }

    fn field(&mut self, name: &str, node: &Node) {
        match known(name, RULE) {
            Some("outputPayloadToHeader") => each_text(node, &mut |text| self.output(text)),
            Some("outputClaimToHeaders") => each_item(node, &mut |item| self.claim(item)),
            Some("fromHeaders") => each_item(node, &mut |item| self.header(item)),
            Some("fromParams") => each_text(node, &mut |text| put(&mut self.params, text)),
            Some("fromCookies") => each_text(node, &mut |text| put(&mut self.cookies, text)),
            _ => self.walk(node),
        }
    }

    fn output(&mut self, text: &str) {
        self.outputs.extend(header_name(text));
    }

    /// `{header, claim}`. Without a readable `header`, any text but the claim may be one.
    fn claim(&mut self, item: &Node) {
        named(item, &["header", "claim"], &mut |text, _| self.output(text));
    }

    /// `{name, prefix}`. Without a readable prefix, the whole value may be a token.
    fn header(&mut self, item: &Node) {
        named(item, &["name", "prefix"], &mut |text, prefix| {
            let name = header_name(text);
            self.headers.extend(name.map(|name| (name, prefix.to_owned())));
        });
    }
}

/// Shows `take` every text of `item` that may be its name: those under the first of `fields`, and, since that may not
/// be readable, those under names that are none of them; with it comes what stands under the second, if that is a
/// text.
fn named(item: &Node, fields: &'static [&'static str; 2], take: &mut dyn FnMut(&str, &str)) {
    let [first, second] = fields;
    let Tree::Map(entries) = &item.value else {
        return each_text(item, &mut |text| take(text, ""));
    };
    let under = |wanted: &'static str| {
        let mut entries = entries.iter();
        entries.find_map(move |(name, node)| (known(name, fields) == Some(wanted)).then_some(node))
    };
    let beside = under(second).and_then(Node::text).unwrap_or_default();
    for (name, node) in entries {
        match known(name, fields) {
            Some(found) if found == *first => each_text(node, &mut |text| take(text, beside)),
            Some(_) => {}
            None => {
                take(name, beside);
                each_text(node, &mut |text| take(text, beside));
            }
        }
    }
}

/// The field of these that is written, or meant.
fn known(name: &str, fields: &'static [&'static str]) -> Option<&'static str> {
    let exact = fields.iter().find(|field| **field == name);
    exact.copied().or_else(|| meant(name, fields))
}

fn each_item(node: &Node, take: &mut dyn FnMut(&Node)) {
    match &node.value {
        Tree::List(items) => items.iter().for_each(|item| each_item(item, take)),
        Tree::Map(_) | Tree::Text(_) => take(node),
        _ => {}
    }
}

/// Every text in a node. Keys are texts of an object that should not be there.
fn each_text(node: &Node, take: &mut dyn FnMut(&str)) {
    match &node.value {
        Tree::Text(text) => take(text),
        Tree::List(items) => items.iter().for_each(|item| each_text(item, take)),
        Tree::Map(fields) => fields.iter().for_each(|(name, node)| {
            take(name);
            each_text(node, take);
        }),
        _ => {}
    }
}

fn put(names: &mut BTreeSet<String>, text: &str) {
    if !text.is_empty() {
        names.insert(text.to_owned());
    }
}

/// What no request can have for a header's name needs no guard.
fn header_name(text: &str) -> Option<String> {
    let name = text.trim().to_ascii_lowercase();
    is_header_name(&name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rule: &str) -> Remains {
        Remains::of(&Node::read(&format!("spec: {{jwtRules: [{rule}]}}"), 1).unwrap())
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_are_found_beside_whatever_is_wrong() {
        for rule in [
            "{isuer: i, outputPayloadToHeader: X-User}",
            "{outputPayloadToHeaders: x-user}",
            "{outputPayloadToHeader: [x-user]}",
            "{outputClaimToHeaders: [{header: x-user}]}",
            "{outputClaimToHeader: [{headr: x-user, claim: sub}]}",
            "{outputClaimToHeaders: {header: x-user, claim: sub}}",
            "{outputClaimToHeaders: {x-user: sub}}",
            "{outputClaimToHeaders: [x-user, 1]}",
            "{outputClaimToHeaders: [{name: x-user, claim: sub}]}",
            "{outputClaimToHeaders: [{header: , name: x-user, claim: sub}]}",
            "{outputClaimToHeaders: [{header: 7, name: x-user, claim: sub}]}",
            "{outputClaimToHeaders: [{heade: a, header: x-user, claim: sub}]}",
            "{outputs: {outputPayloadToHeader: ' x-user '}}",
        ] {
            let found = of(rule);
            assert!(found.outputs.contains("x-user"), "{rule}: {found:?}");
            assert!(!found.outputs.contains("claim"), "{rule}: {found:?}");
        }
        let misplaced = "jwtRules: {outputPayloadToHeader: x-user}\nmetadata: {outputPayloadToHeader: no}";
        let found = Remains::of(&Node::read(misplaced, 1).unwrap());
        assert_eq!(found.outputs, set(&["x-user"]));
    }

    #[test]
    fn places_are_found_and_a_prefix_that_cannot_be_read_is_none() {
        for (rule, prefix) in [
            ("{fromHeaders: [{name: X-T, prefix: 'T '}]}", "T "),
            ("{fromHeaders: [{nam: x-t, prefx: 'T '}]}", "T "),
            ("{fromHeaders: [{name: x-t, prefix: 7}]}", ""),
            ("{fromHeaders: [x-t]}", ""),
            ("{fromHeaders: x-t}", ""),
            ("{fromHeader: [{header: x-t}]}", ""),
        ] {
            let found = of(rule);
            let wanted = ("x-t".to_owned(), prefix.to_owned());
            assert!(found.headers.contains(&wanted), "{rule}: {found:?}");
        }
        let found = of("{fromParams: [a, '', 1, b], fromCookie: c, timeout: 5}");
        assert_eq!((found.params, found.cookies), (set(&["a", "b"]), set(&["c"])));
    }

    #[test]
    fn the_usual_places_are_always_among_them() {
        let own = of("{fromCookies: [c]}").locations();
        let usual = Locations::default();
        assert_eq!((own.headers, own.params), (usual.headers, usual.params));
        assert_eq!(own.cookies, ["c"]);
    }
}
