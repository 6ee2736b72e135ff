//! Where policies and the objects around them come from: files, directories, standard input, a cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use signet_policy::document::{Content, Reading, read_object, read_text};
use signet_policy::fault::Fault as PolicyFault;
use signet_policy::model::ObjectKey;
use signet_runtime::files::read_bounded;

use super::cluster;
use super::tree::Tree;
use crate::fault::Fault;
use crate::inputs::{self, STDIN};

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: usize = 16 << 20;
/// Most files of one run.
const MAX_FILES: usize = 10_000;
/// Deepest directory within a directory.
const MAX_DEPTH: usize = 16;
/// Endings of files that a directory is searched for.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// What standard input is called in output.
const STDIN_NAME: &str = "stdin";

/// The sentence on kinds that a cluster does not have.
#[must_use]
pub fn missing(kinds: &[&str]) -> Option<String> {
    (!kinds.is_empty()).then(|| {
        format!(
            "the cluster does not have the kinds {}, so none of them was looked at",
            kinds.join(", ")
        )
    })
}

/// Everything that was read.
#[derive(Debug, Default)]
pub struct Documents {
    /// The documents, foreign ones included, in their order.
    pub readings: Vec<Reading>,
    /// Objects of other groups: pods, services, namespaces.
    pub others: Vec<Other>,
    /// How many files there were; none for a cluster.
    pub files: usize,
    /// Kinds of policies that the cluster does not have.
    pub missing_kinds: Vec<&'static str>,
    places: BTreeMap<ObjectKey, Located>,
}

/// An object that is no policy.
#[derive(Clone, Debug)]
pub struct Other {
    /// Where it is.
    pub place: Place,
    /// What it says.
    pub value: Value,
}

/// A file and a line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Place {
    /// The file; for an object of a cluster, the address it came from.
    pub file: String,
    /// The line, from 1; nothing for an object of a cluster.
    pub line: Option<u64>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// Where a policy is, and what stands where in it.
#[derive(Debug)]
struct Located {
    place: Place,
    tree: Option<Tree>,
}

/// What an operator named.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Files, directories, `-`.
    pub paths: &'a [PathBuf],
    /// A cluster to be asked in their place.
    pub kubeconfig: Option<&'a Path>,
    /// The namespace of objects that name none.
    pub namespace: Option<&'a str>,
}

impl Documents {
    /// Reads all of it.
    ///
    /// # Errors
    /// [`Fault::Unanswered`] with what cannot be read.
    pub async fn read(wanted: Wanted<'_>) -> Result<Self, Fault> {
        let mut documents = Self::default();
        if let Some(kubeconfig) = wanted.kubeconfig {
            let held = cluster::objects(kubeconfig).await?;
            for object in held.objects {
                documents.add_object(&object.origin, object.value);
            }
            documents.missing_kinds = held.missing;
            return Ok(documents);
        }
        for path in wanted.paths {
            documents.add_path(path, wanted.namespace)?;
        }
        Ok(documents)
    }

    /// What is to be said of kinds that the cluster does not have.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        missing(&self.missing_kinds)
    }

    fn add_path(&mut self, path: &Path, namespace: Option<&str>) -> Result<(), Fault> {
        if path == Path::new(STDIN) {
            let bytes = inputs::data(path, MAX_FILE_BYTES)?;
            return self.add_bytes(STDIN_NAME, &bytes, namespace);
        }
        if !path.is_dir() {
            return self.add_file(path, namespace);
        }
        let mut files = Vec::new();
        find(path, 0, &mut files)?;
        if files.is_empty() {
            let text = format!("{} holds no .yaml, .yml or .json file", path.display());
            return Err(Fault::Unanswered(text));
        }
        files.iter().try_for_each(|file| self.add_file(file, namespace))
    }

    fn add_file(&mut self, path: &Path, namespace: Option<&str>) -> Result<(), Fault> {
        let bytes = read_bounded(path, MAX_FILE_BYTES).map_err(Fault::unanswered)?;
        self.add_bytes(&path.display().to_string(), &bytes, namespace)
    }

    fn add_bytes(&mut self, origin: &str, bytes: &[u8], namespace: Option<&str>) -> Result<(), Fault> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Fault::Unanswered(format!("{origin} is not text in UTF-8")))?;
        self.files += 1;
        self.add_text(origin, text, namespace);
        Ok(())
    }

    /// Takes the documents of a text.
    pub fn add_text(&mut self, origin: &str, text: &str, namespace: Option<&str>) {
        let mut objects: Vec<Tree> = Vec::new();
        let mut line = 0;
        for reading in read_text(origin, text, namespace) {
            if reading.line != line {
                line = reading.line;
                let tree = Tree::read(document(text, line));
                objects = tree.map(Tree::objects).unwrap_or_default();
                objects.reverse();
            }
            self.add(reading, objects.pop());
        }
    }

    fn add_object(&mut self, origin: &str, value: Value) {
        let reading = read_object(origin, &value);
        if let Content::Foreign(_) = reading.content {
            let file = origin.to_owned();
            let place = Place { file, line: None };
            self.others.push(Other { place, value });
        }
        self.add(reading, None);
    }

    fn add(&mut self, reading: Reading, tree: Option<Tree>) {
        let before = reading.line.saturating_sub(1);
        let first = tree.as_ref().map_or(1, |tree| tree.line_of(""));
        let place = Place {
            file: reading.origin.to_string(),
            line: (reading.line > 0).then_some(before + first),
        };
        match (&reading.content, tree) {
            (Content::Foreign(_), Some(tree)) => {
                let value = tree.to_json();
                self.others.push(Other { place, value });
            }
            (Content::Foreign(_), None) => {}
            (_, tree) => {
                if let Some(key) = key(&reading) {
                    self.places.entry(key).or_insert(Located { place, tree });
                }
            }
        }
        self.readings.push(reading);
    }

    /// Where an object is, or a field of it.
    #[must_use]
    pub fn place(&self, key: &ObjectKey, field: &str) -> Option<Place> {
        let located = self.places.get(key)?;
        let file = located.place.file.clone();
        let Some(tree) = &located.tree else {
            return Some(located.place.clone());
        };
        let before = located.place.line?.saturating_sub(tree.line_of(""));
        let line = Some(before + tree.line_of(field));
        Some(Place { file, line })
    }

    /// What stands where in an object.
    pub(super) fn tree(&self, key: &ObjectKey) -> Option<&Tree> {
        self.places.get(key)?.tree.as_ref()
    }

    /// The policies whose names can be read, as JSON, in their order; each once.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectKey, Value)> {
        let mut known = std::collections::BTreeSet::new();
        let keys = self.readings.iter().filter_map(key);
        keys.filter(move |key| known.insert(key.clone()))
            .filter_map(|key| self.tree(&key).map(Tree::to_json).map(|value| (key, value)))
    }

    /// How many documents are policies, faulty ones included.
    #[must_use]
    pub fn policies(&self) -> usize {
        let ours = |reading: &&Reading| !matches!(reading.content, Content::Foreign(_));
        self.readings.iter().filter(ours).count()
    }

    /// Every fault, with its file and its object.
    pub fn faults(&self) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        let mut known: BTreeMap<ObjectKey, &Reading> = BTreeMap::new();
        for reading in &self.readings {
            if let Content::Faulty(faulty) = &reading.content {
                let faults = faulty.faults.iter();
                let fault = |fault: &PolicyFault| Problem::Engine(fault.clone());
                found.extend(faults.map(fault).map(|fault| Found { reading, fault }));
            }
            let Some(key) = key(reading) else {
                continue;
            };
            match known.get(&key) {
                Some(first) if !same(first, reading) => {
                    let fault = Problem::Twice(self.place(&key, ""));
                    found.push(Found { reading, fault });
                }
                Some(_) => {}
                None => {
                    known.insert(key, reading);
                }
            }
        }
        found
    }
}

/// A fault and the document it is in.
#[derive(Clone, Debug)]
pub struct Found<'d> {
    /// The document.
    pub reading: &'d Reading,
    /// The fault, and where the object stands first if this is a second one.
    pub fault: Problem,
}

/// What is wrong with a document.
#[derive(Clone, Debug)]
pub enum Problem {
    /// The engine says so.
    Engine(PolicyFault),
    /// Another document has the same object in another version.
    Twice(Option<Place>),
}

fn same(a: &Reading, b: &Reading) -> bool {
    match (&a.content, &b.content) {
        (Content::Sound(a), Content::Sound(b)) => a == b,
        _ => false,
    }
}

/// The object that a document is, if its name could be read.
pub(super) fn key(reading: &Reading) -> Option<ObjectKey> {
    match &reading.content {
        Content::Sound(object) => Some(object.key()),
        Content::Faulty(faulty) => faulty.key.clone(),
        Content::Foreign(_) => None,
    }
}

/// The document that begins on a line, up to the next marker.
fn document(text: &str, first: u64) -> &str {
    let skip = usize::try_from(first.saturating_sub(1)).unwrap_or(usize::MAX);
    let mut lines = text.split_inclusive('\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line))
    });
    let Some((start, _)) = lines.by_ref().nth(skip) else {
        return "";
    };
    let marker = |line: &str| {
        let rest = line.strip_prefix("---");
        rest.is_some_and(|rest| rest.trim_end().is_empty() || rest.starts_with([' ', '\t']))
    };
    let end = lines
        .find(|(_, line)| marker(line))
        .map_or(text.len(), |(at, _)| at);
    text.get(start..end).unwrap_or_default()
}

/// The files of a directory, in the order of their names. Hidden ones are left alone, among them the
/// directories that kubelet keeps for mounted ConfigMaps.
fn find(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Fault> {
    let wrong = |e: std::io::Error| Fault::Unanswered(format!("read {}: {e}", directory.display()));
    if depth > MAX_DEPTH {
        let text = format!(
            "{} lies more than {MAX_DEPTH} directories deep",
            directory.display()
        );
        return Err(Fault::Unanswered(text));
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(wrong)? {
        entries.push(entry.map_err(wrong)?.path());
    }
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            find(&path, depth + 1, files)?;
        } else if ENDINGS.contains(&&*ending) {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            let text = format!("{} holds more than {MAX_FILES} files", directory.display());
            return Err(Fault::Unanswered(text));
        }
    }
    Ok(())
}

/// What documents say, as one set.
#[must_use]
pub fn set(documents: &Documents) -> signet_policy::PolicySet {
    let mut set = signet_policy::PolicySet::default();
    set.replace(documents.readings.clone());
    set
}
